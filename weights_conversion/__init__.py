"""Published weights, read without torch and kept as Orbax checkpoints."""

from .batch_norm import fold_batch_norm as fold_batch_norm
from .cache import restore as restore
from .cache import restore_or_convert as restore_or_convert
from .cache import save as save
from .checkpoints import open_checkpoint as open_checkpoint
from .converter import convert as convert
from .download import DownloadError as DownloadError
from .download import fetch as fetch
from .folders import cache_directory as cache_directory
from .tensors import CheckpointError as CheckpointError
