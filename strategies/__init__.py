"""How it is learnt and kept: learners, continual strategies."""
