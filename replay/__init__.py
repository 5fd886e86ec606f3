"""What is remembered: queues, neighbours, exemplars, prototypes, clusters."""
