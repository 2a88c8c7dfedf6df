"""Data sets: annotation files, images, checks, augmentation, sampling order, and the data module that combines them."""

from .albumentations_adapter import Albumentations as Albumentations
from .check_report import CheckReport as CheckReport
from .check_report import check as check
from .coco_data import Category as Category
from .coco_data import CocoData as CocoData
from .conversion import Conversion as Conversion
from .conversion import convert as convert
from .dataset import CocoDataset as CocoDataset
from .module import CocoDataModule as CocoDataModule
from .ordering import Draw as Draw
from .ordering import EpochSampler as EpochSampler
from .problems import DataError as DataError
from .resumable_loader import ResumableLoader as ResumableLoader
from .split import stratified_split as stratified_split
from .transforms import box_rows as box_rows
from .transforms import default_train_transforms as default_train_transforms
