"""How a learner is trained under a strategy: Avalanche's template, the plan of its steps, the settings."""
