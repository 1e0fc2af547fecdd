"""Results to a page, or to a tracker of experiments."""

from collections.abc import Sequence
from pathlib import Path

from lrh_ray.artifacts import find_results, load_result
from lrh_ray.durable import disk_errors
from lrh_ray.errors import ResultMissing
from lrh_ray.records import Plain
from lrh_ray.report import render_report
from lrh_ray.trackers.tracking import track


def write_report(paths: Sequence[Path], output: Path, *, title: str) -> int:
    """Render results (or all results of run folders) into one HTML file; returns its size in bytes.

    Raises:
        ResultMissing: A path holds no result.
    """
    results = [load_result(found) for path in paths for found in _results_at(path)]
    page = render_report(results, title=title).encode()
    with disk_errors(str(output)):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(page)
    return len(page)


def write_tracks(paths: Sequence[Path], tracker: str, folder: Path) -> list[dict[str, Plain]]:
    """Write curves and numbers of results (or of all results of run folders) with a tracker's library.

    Raises:
        ResultMissing: A path holds no result.
        Everything that `track` raises.
    """
    found = [load_result(place) for path in paths for place in _results_at(path)]
    return [track(result, tracker, folder) for result in found]


def _results_at(path: Path) -> Sequence[Path]:
    if path.name == "result.json" or (path / "result.json").exists():
        return [path]
    found = find_results(path / "results") if (path / "results").is_dir() else find_results(path)
    if not found:
        raise ResultMissing(f"No result at {str(path)!r}. `lrh fit CONFIG` prints the path of the one it writes.")
    return found
