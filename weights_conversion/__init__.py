"""Published weights, read without torch and kept as Orbax checkpoints."""

from .batch_norm import fold_batch_norm as fold_batch_norm
from .cache import restore as restore
from .cache import restore_or_convert as restore_or_convert
from .cache import save as save
from .checkpoints import Checkpoint as Checkpoint
from .checkpoints import open_checkpoint as open_checkpoint
from .converter import convert as convert
from .converter import problems as problems
from .converter import torch_name as torch_name
from .download import DownloadError as DownloadError
from .download import fetch as fetch
from .folders import cache_directory as cache_directory
from .matching import Rename as Rename
from .matching import classifier as classifier
from .matching import pairs as pairs
from .matching import renaming as renaming
from .matching import without_prefix as without_prefix
from .orbax_format import OrbaxFolder as OrbaxFolder
from .shards import Shards as Shards
from .tensors import CheckpointError as CheckpointError
