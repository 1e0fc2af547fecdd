"""Trackers of experiments: a result's curves and final numbers, written by the tracker's own library.

    track(load_result("runs/demo/results/1f3a"), "tensorboard", Path("runs/tracked"))

| file | does |
|---|---|
| `log` | result -> curves by step, final numbers, settings, under names that every tracker takes |
| `tensorboard`, `wandb`, `trackio`, `mlflow` | write such a log, each into a folder |
| `tracking` | which of them; one error for a library that is missing |

A result is complete before it is tracked: nothing here runs inside a training loop, so a tracker that is slow, missing
or offline cannot touch a run. None of these libraries is a dependency, and none is imported before it is asked for.
Nothing is sent anywhere: each writes local files, and its own command uploads or shows them.
"""
