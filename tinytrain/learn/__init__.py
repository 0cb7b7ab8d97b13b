"""Learning a user's few examples: ways to adapt a network, estimators, and how well it went. It
stands on the trainer and plans nothing itself."""
