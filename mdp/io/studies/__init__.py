"""Commands that run others or compare what they left: `mdp compare`, `mdp demo`, `mdp taxonomy`.

They stand above everything else, since they call the jobs of the other commands.
"""
