"""Data sets with ground truth: records of one form from whatever layout they are published in.

    source = jaxattr.data.open_source("voc:VOCdevkit/VOC2007", split="test")
    for batch in jaxattr.data.batches(source, preprocess, size=16):
        maps = attribution(batch.inputs, batch.targets)

Nothing here knows of models or methods, and `import jaxattr` does not import it. TensorFlow is
never needed; TensorFlow Datasets and Grain come with `pip install "jaxattr[data]"`.
"""

from jaxattr.data.geometry import Geometry as Geometry
from jaxattr.data.reading import Batch as Batch
from jaxattr.data.reading import Failure as Failure
from jaxattr.data.reading import batches as batches
from jaxattr.data.records import Record as Record
from jaxattr.data.records import class_mask as class_mask
from jaxattr.data.records import record as record
from jaxattr.data.sources import Source as Source
from jaxattr.data.sources import open_source as open_source
from jaxattr.data.sources import with_classes as with_classes
