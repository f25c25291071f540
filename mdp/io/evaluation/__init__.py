"""`mdp eval`: counts over a split, scores from counts, and the files of benchmarks' servers."""
