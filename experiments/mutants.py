"""Do the tests notice? One small fault at a time in a module, and its tests run.

    python experiments/mutants.py --module=klip_jax.kl [--most=60] [--at_once=2]
    python experiments/mutants.py --named

A mutant is the module with one fault: a comparison, sign or product turned, a constant
moved, a keyword argument, an element or one side of a mask dropped, a condition
negated, a check left out (`lab/faults.py`). It is never written to disk: a process of
its own, forked from one that has imported JAX, gets it when it imports the module, and
runs the module's fast tests until one fails. A mutant that no test notices survives.
Types are not checked meanwhile: what only they notice is not noticed.

--named runs faults that once survived and must not again (`NAMED`), and exits 1 if one
does. Prints one JSON object; of a module it writes results/mutants_<module>.md, its
survivors. Why they may live is said in RESULTS.md. Some ten seconds a mutant.
"""

import importlib.util
import json
import multiprocessing
import os
import random
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import app, flags
from checks import check, finish
from lab import faults, tables
from tqdm import tqdm

# Nothing of klip_jax: a process that has imported it would not see the mutant.
ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "klip_jax.kl": ["tests/test_kl.py", "tests/test_closed_form_kl.py"],
    "klip_jax.calibration": ["tests/test_calibration.py"],
    "klip_jax.reference_law": ["tests/test_calibration.py"],
    "klip_jax.guidance.conditional_gaussian": [
        "tests/guidance/test_conditional_gaussian.py",
        "tests/test_posterior.py",
    ],
    "klip_jax.posterior": ["tests/test_posterior.py"],
    "klip_jax.report.evaluate": ["tests/report"],
    "klip_jax.report.maps": ["tests/report"],
    "klip_jax.run.chunks": ["tests/run"],
    "klip_jax.run.claim": ["tests/run/test_claim.py"],
    "klip_jax.run.detect": ["tests/run"],
    "klip_jax.run.inputs": ["tests/run"],
    "klip_jax.run.job": ["tests/run"],
    "klip_jax.run.law": ["tests/run"],
    "klip_jax.run.look": ["tests/run"],
    "klip_jax.run.named_images": ["tests/run"],
    "klip_jax.run.settings": [
        "tests/run/test_claim.py",
        "tests/run/test_overrides.py",
        "tests/run/test_job.py",
    ],
    "klip_jax.run.shipped": ["tests/run"],
    "klip_jax.run.store": ["tests/run"],
}
SECONDS = 300  # of CPU; a mutant that takes longer hangs, which is noticed
SURVIVED, KILLED = "survived", "killed"
NOT_IMPORTED = 70
FLAGS = flags.FLAGS
flags.DEFINE_enum("module", "klip_jax.kl", list(TESTS), "Which one.")
flags.DEFINE_integer("most", 0, "Mutants to draw of all there are; 0: all.")
flags.DEFINE_integer("seed", 0, "Of the draw.")
flags.DEFINE_integer("at_once", 2, "Processes.")
flags.DEFINE_bool("named", False, "The faults that once survived, in all modules.")


def main(_):
    if FLAGS.named:
        named = faults.NAMED
        for fault in named:
            check_tests(fault.module, fault.tests)
        asked = [(f.module, f.source(read(f.module)), f.tests) for f in named]
        ends = zip(named, outcomes(asked), strict=True)
        finish({"checks": [check(f.name, end == KILLED, True, 0) for f, end in ends]})
    module = FLAGS.module
    check_tests(module, TESTS[module])
    every = list(faults.mutants(read(module)))
    if FLAGS.most and FLAGS.most < len(every):
        every = random.Random(FLAGS.seed).sample(every, FLAGS.most)
        every.sort(key=lambda mutant: mutant.line)
    ends = outcomes([(module, mutant.source, TESTS[module]) for mutant in every])
    alive = [m for m, end in zip(every, ends, strict=True) if end == SURVIVED]
    rows = [[str(m.line), m.what, f"`{m.before}`"] for m in alive]
    text = (
        f"{len(every) - len(alive)} of {len(every)} mutants of {module} are noticed.\n"
    )
    text += "\n" + tables.markdown(["line", "fault", "of"], rows) if rows else ""
    short = module.removeprefix("klip_jax.")
    path = ROOT / "experiments" / "results" / f"mutants_{short}.md"
    path.write_text(text)
    survivors = [mutant._asdict() for mutant in alive]
    for survivor in survivors:
        del survivor["source"]
    report = {"module": module, "mutants": len(every), "survivors": survivors}
    print(json.dumps(report))


def read(module):
    """Return the source of a module of the checkout."""
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").read_text()


def check_tests(module, tests):
    """Exit with a sentence unless the tests pass where there is no fault."""
    if outcome(module, read(module), tests) == KILLED:
        sys.exit(f"the tests of {module} fail or hang without any fault: {tests}")


def outcomes(asked):
    """Yield what becomes of mutants (module, source, tests), in their order."""
    with ThreadPoolExecutor(FLAGS.at_once) as pool:
        ends = pool.map(lambda one: outcome(*one), asked)
        yield from tqdm(ends, total=len(asked), unit="mutant")


def outcome(module, source, tests):
    """Run tests with this source of a module; returns SURVIVED or KILLED."""
    # Forked from a process that has imported what is slow to import, and nothing of
    # this package.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flax.linen", "jax", "optax", "pytest", "scipy"])
    child = context.Process(target=run_tests, args=(module, source, tests))
    child.start()
    child.join(20 * SECONDS)
    if child.is_alive():
        child.kill()
        child.join()
    # Of pytest: 0 none failed, 1 some did, 2 on import; below 0 it crashed or hung.
    elif child.exitcode > 2:
        why = {NOT_IMPORTED: "no test imports it"}
        words = why.get(child.exitcode, f"pytest exits with {child.exitcode}")
        sys.exit(f"{module}: {words}; tests {tests}")
    return SURVIVED if child.exitcode == 0 else KILLED


def run_tests(module, source, tests):
    """Run the fast ones of `tests` with another source of a module; exit 0 if all pass.

    The status is that of pytest, or NOT_IMPORTED if the source was never asked for.
    """
    # The hook that checks types finds modules before anybody else does.
    os.environ["KLIP_TYPECHECK"] = "0"
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    assert not any(name.partition(".")[0] == "klip_jax" for name in sys.modules)
    os.chdir(ROOT)
    for file in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), file)
    mutated = Mutated(module, source)
    sys.meta_path.insert(0, mutated)
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    status = pytest.main([*arguments, *tests])
    sys.exit(int(status) if mutated.imported else NOT_IMPORTED)


class Mutated:
    """Finds one module, and gives it another source."""

    def __init__(self, module, source):
        self.module, self.source, self.imported = module, source, False

    def find_spec(self, name, path=None, target=None):
        if name != self.module:
            return None
        file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        return importlib.util.spec_from_file_location(name, file, loader=self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.imported = True
        exec(compile(self.source, module.__spec__.origin, "exec"), module.__dict__)


if __name__ == "__main__":
    app.run(main)
