"""Keep pytest from importing the scripts of this folder: they need other libraries."""

collect_ignore_glob = ["*.py"]
