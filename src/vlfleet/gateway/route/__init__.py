"""The route: what each replica holds and has to do, what a request would cost on each, and who gets it. Pure."""

from vlfleet.gateway.route.cost import Coefficients, Load, Terms, predict
from vlfleet.gateway.route.features import Features, Medium, Placed, Run, features
from vlfleet.gateway.route.mirror import Capacities, Left, Mirror, capacities_of
from vlfleet.gateway.route.policy import Candidate, Policy, choose
from vlfleet.gateway.route.router import Decision, Router, explain

__all__ = [
    "Candidate",
    "Capacities",
    "Coefficients",
    "Decision",
    "Features",
    "Left",
    "Load",
    "Medium",
    "Mirror",
    "Placed",
    "Policy",
    "Router",
    "Run",
    "Terms",
    "capacities_of",
    "choose",
    "explain",
    "features",
    "predict",
]
