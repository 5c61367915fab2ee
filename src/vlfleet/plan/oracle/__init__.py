"""The oracle: vLLM's own word on a configuration, without a GPU, without weights, before anything is started."""

from vlfleet.plan.oracle.prove import prove
from vlfleet.plan.oracle.question import Answer, Device, Question, RankBytes, Verdict
from vlfleet.plan.oracle.releases import Release, released

__all__ = ["Answer", "Device", "Question", "RankBytes", "Release", "Verdict", "prove", "released"]
