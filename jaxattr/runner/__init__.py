"""From one image to fifty thousand: explain a data set, measure the maps, report.

    job = jaxattr.runner.Job(data="tfds:imagenet_v2", model="resnet50", methods={"lrp": {}})
    jaxattr.runner.explain(job, source, model, preprocess, "runs/lrp")

`jobs` says what is computed, `store` keeps it, `devices` spreads a batch over the devices of a
process, `explanations` computes maps, `evaluating` measures them, `tables` and `pages` tell.
A run that is killed goes on where it was.
"""

from jaxattr.runner.evaluating import evaluate as evaluate
from jaxattr.runner.explanations import Summary as Summary
from jaxattr.runner.explanations import explain as explain
from jaxattr.runner.jobs import Job as Job
from jaxattr.runner.pages import report as report
from jaxattr.runner.store import Store as Store
