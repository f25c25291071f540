"""`mdp check`: every image is read once, and what is wrong is told before training finds it."""
