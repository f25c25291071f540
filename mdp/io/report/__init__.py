"""`mdp report`: one HTML page about runs."""
