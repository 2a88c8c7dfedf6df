"""Data modules of small COCO data sets."""

from lit_dense.data import CocoDataModule


def data_module(folder, *splits, **options):
    """A CocoDataModule of splits, by default of train, val and test, each with a folder and a file of its name."""
    files = {}
    for split in splits or ("train", "val", "test"):
        files |= {f"{split}_images": split, f"{split}_annotations": f"{split}.json"}
    return CocoDataModule(folder, **{"num_workers": 0, "batch_size": 2} | files | options)
