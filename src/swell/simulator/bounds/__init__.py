"""What nobody could have undercut, and what an optimum with hindsight looks like.

For one scenario, each at least as large as the one before (in US dollars):

- `fluid`: every request on its cheapest machine, machines in fractions, started for nothing (B0). A lower bound.
- `program`: replicas over time with paid starts and deadlines, as a linear program and with whole replicas (B1). Both
  are lower bounds.
- `right_sizing`: the exact optimum of one pool if work may not move between slots (B1'). A reference, no bound.

`work` says what a request takes of a replica, at the least.
"""
