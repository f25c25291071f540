"""`mdp pretrain` and `mdp finetune`: the loop, an update, and the phases, which are the kinds of runs.

A new phase is one file; `job.run_phase` runs any of them.
"""
