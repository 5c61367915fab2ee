"""The oracle: vLLM's own word on a configuration, without a GPU, without weights, before anything is started."""

from vlfleet.plan.oracle.prove import prove
from vlfleet.plan.oracle.question import Answer, Device, Question, RankBytes, Verdict
from vlfleet.plan.oracle.weight_formats import WeightFormat, stored_as

__all__ = ["Answer", "Device", "Question", "RankBytes", "Verdict", "WeightFormat", "prove", "stored_as"]
