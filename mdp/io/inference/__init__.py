"""`mdp predict`, and predicting one image within a limit of memory."""
