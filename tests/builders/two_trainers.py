"""Lightning's trainer within the two processes of a pool, which are in one gloo group already."""

from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from tests.builders.trainers import trainer_in


class OfPool(LightningEnvironment):
    """Processes that were started by somebody else."""

    creates_processes_externally = True

    def __init__(self, rank):
        super().__init__()
        self.rank = rank

    def local_rank(self):
        return self.rank

    def global_rank(self):
        return self.rank

    def world_size(self):
        return 2

    def set_global_rank(self, rank):
        pass

    def set_world_size(self, size):
        pass


def trainer_of(rank, folder, *callbacks, **arguments):
    """A quiet trainer of one process, or the trainer of one of two processes."""
    if rank is None:
        return trainer_in(folder, *callbacks, devices=1, **arguments)
    strategy = DDPStrategy(cluster_environment=OfPool(rank), process_group_backend="gloo")
    return trainer_in(folder, *callbacks, strategy=strategy, devices=2, **arguments)
