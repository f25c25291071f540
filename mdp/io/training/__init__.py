"""`mdp pretrain` and `mdp finetune`: the loop, an update, and what the two kinds of runs do in it."""
