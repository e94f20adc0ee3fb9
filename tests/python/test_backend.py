"""The ONNX project's own backend tests on ai_vmm.backend: exactly the cases of tests/conformance/exceptions.txt fail, as in
the C++ conformance run.

    test_backend.py CASES      CASES: the folder of the conformance cases, build/conformance
"""

import pathlib
import sys
import unittest
import warnings

import numpy as np
import onnx.backend.test
import onnx.backend.test.loader
from onnx import helper

import ai_vmm
import ai_vmm.backend

CASES = pathlib.Path(sys.argv.pop(1)) if len(sys.argv) > 1 else pathlib.Path("build/conformance")
LIST = pathlib.Path(__file__).resolve().parents[1] / "conformance" / "exceptions.txt"


def exceptions() -> set[str]:
    """The cases that backend cpu is known to fail."""
    rows = [line.split() for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return {name for backend, name, *_ in rows if backend in ("*", "cpu")}


# The runner takes len() of every element of a sequence, and this one has a scalar in it: no backend can pass. Its values are
# compared here instead.
BEYOND_THE_RUNNER = "test_loop16_seq_none"


class AllCases(ai_vmm.backend.AiVmmBackend):
    """Says of no case that it is incompatible, so that the runner skips none."""

    @classmethod
    def is_compatible(cls, model, device="CPU", **kwargs):
        return True


class Runner(unittest.TestCase):
    maxDiff = None

    def test_results_equal_those_of_the_conformance_run(self):
        # As there: one thread, and nothing falls to the reference in silence.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tests = onnx.backend.test.BackendTest(AllCases, __name__, test_kwargs={"threads": 1, "strict": True})
        suite = unittest.TestSuite()
        names, networks = set(), set()
        for category, cases in tests.test_cases.items():
            for case in unittest.defaultTestLoader.loadTestsFromTestCase(cases):
                if case._testMethodName.endswith("_cpu"):
                    names.add(case._testMethodName.removesuffix("_cpu"))
                    if "Real" in category:  # whole networks that come with onnx; the zoo's tests have them in C++
                        networks.add(case._testMethodName.removesuffix("_cpu"))
                    suite.addTest(case)
        result = unittest.TestResult()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            suite.run(result)
        bad = {case._testMethodName.removesuffix("_cpu"): text for case, text in result.failures + result.errors}
        print(f"onnx.backend.test: {result.testsRun} cases, {len(bad)} fail (as listed: {sorted(bad)})")
        self.assertEqual(result.skipped, [])
        self.assertGreater(result.testsRun, 1500)
        expected = (exceptions() | {BEYOND_THE_RUNNER}) & names
        self.assertEqual({n: t for n, t in bad.items() if n not in expected}, {})
        self.assertEqual(expected - bad.keys(), set(), "listed as failing, but they pass")
        there = {p.parent.name for p in CASES.glob("*/*/case.txt")}
        self.assertEqual(names - there - networks, set(), "cases that the conformance run does not have")


    def test_the_case_that_the_runner_cannot_compare(self):
        case, = (c for c in onnx.backend.test.loader.load_model_tests(kind="node") if c.name == BEYOND_THE_RUNNER)
        for inputs, (expected,) in case.data_sets:
            got = AllCases.run_model(case.model, inputs, threads=1, strict=True)[0]
            self.assertEqual(len(got), len(expected))
            for g, e in zip(got, expected):
                self.assertEqual((g.dtype, g.shape), (e.dtype, e.shape))
                np.testing.assert_allclose(g, e, rtol=1e-6)


class Interface(unittest.TestCase):
    X = np.array([[1, -2], [-3, 4]], np.float32)
    MODEL = helper.make_model(helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])], "g",
        [helper.make_tensor_value_info("x", 1, ["N", 2])],
        [helper.make_tensor_value_info("y", 1, ["N", 2]), helper.make_tensor_value_info("z", 1, ["N", 2])]),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    def test_ways_to_run(self):
        backend = ai_vmm.backend
        for inputs in ([self.X], self.X, {"x": self.X}):
            outputs = backend.prepare(self.MODEL).run(inputs)
            np.testing.assert_array_equal(outputs[0], np.maximum(self.X, 0))
            np.testing.assert_array_equal(outputs["z"], -self.X)
        np.testing.assert_array_equal(backend.run_model(self.MODEL, [self.X], threads=1).y, np.maximum(self.X, 0))
        np.testing.assert_array_equal(
            backend.run_node(helper.make_node("Add", ["a", "b"], ["c"]), [self.X, self.X])[0], 2 * self.X)
        np.testing.assert_array_equal(
            backend.run_node(helper.make_node("ReduceSum", ["a"], ["c"], axes=[0], keepdims=0), [self.X],
                             opset_version=11)[0], self.X.sum(0))
        with self.assertRaises(ai_vmm.InvalidArgument):
            backend.prepare(self.MODEL).run([self.X, self.X])

    def test_devices(self):
        self.assertTrue(ai_vmm.backend.supports_device("CPU"))
        for device in ("CPU:7", "ABACUS", "CPU:x"):
            self.assertFalse(ai_vmm.backend.supports_device(device))
            with self.assertRaises(ai_vmm.InvalidArgument):
                ai_vmm.backend.prepare(self.MODEL, device)
        self.assertTrue(ai_vmm.backend.is_compatible(self.MODEL))
        self.assertFalse(ai_vmm.backend.is_compatible(b"nothing"))


if __name__ == "__main__":
    unittest.main()
