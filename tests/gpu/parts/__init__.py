"""The parts, in order of worth: one file each, with `check(findings, device, quick)`."""

SECONDS = {  # a part's limit on a GPU; some three times what one H200 with 16 cores is expected to take
    "core": 45,
    "methods": 75,
    "speed": 170,
    "resume": 100,
    "run": 180,
    "bits": 75,
    "compile": 180,
}
