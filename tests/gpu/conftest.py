"""Only the test file of this folder is pytest's: the others are started by the runner, some of them to be timed."""

collect_ignore = ["parts", "commands.py", "findings.py", "first_contact.py", "table.py"]
