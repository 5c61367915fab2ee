"""All kinds of facts, in the order in which they are gathered: later ones may build on earlier ones."""

from vlfleet.checkup.facts import disk, environment, gpus, host, kernel, model, network, nodes, packages, traffic
from vlfleet.checkup.gather import Gatherer

GATHERERS = (
    Gatherer(host.Host, host.gather),
    Gatherer(kernel.Kernel, kernel.gather, seconds=10),
    Gatherer(gpus.Gpus, gpus.gather, seconds=gpus.SECONDS + 5),
    Gatherer(packages.Packages, packages.gather_packages, seconds=packages.INSTALLED_SECONDS + 65),
    Gatherer(packages.Imports, packages.gather_imports, seconds=packages.IMPORT_SECONDS + 5, quick=False),
    Gatherer(environment.Environment, environment.gather),
    Gatherer(disk.Disks, disk.gather, seconds=10),
    Gatherer(network.Network, network.gather, seconds=15),
    Gatherer(model.Model, model.gather, seconds=20),
    Gatherer(nodes.Nodes, nodes.gather, seconds=15),
    Gatherer(traffic.Transfers, traffic.gather_transfers, seconds=traffic.TRANSFER_SECONDS + 10, quick=False),
    Gatherer(traffic.Reductions, traffic.gather_reductions, seconds=traffic.REDUCE_SECONDS + 40, quick=False),
)

__all__ = ["GATHERERS"]
