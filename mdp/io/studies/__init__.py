"""Commands that run others or compare what they left: `mdp compare`, `mdp demo`, `mdp taxonomy`."""
