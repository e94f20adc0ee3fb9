"""The package's own interface: deploy, calls, memory, types, errors, threads, interrupts."""

import asyncio
import gc
import json
import os
import pathlib
import signal
import tempfile
import threading
import time
import unittest

import ml_dtypes
import models
import numpy as np
from onnx import TensorProto as T
from onnx import helper

import ai_vmm

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = X + np.float32([1, 2, 3])


class Exporter:
    """Something with DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Arraylike:
    def __array__(self, dtype=None, copy=None):
        return X


class Calls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = ai_vmm.deploy(models.add())

    def test_ways_to_give_inputs(self):
        for given in (X, Exporter(X), Arraylike(), memoryview(X), X.tolist(), [[0, 1, 2], [3, 4, 5]], np.asfortranarray(X),
                      X.astype(">f4"), np.repeat(X, 2, axis=1)[:, ::2], ai_vmm.Value.of(X)):
            np.testing.assert_array_equal(self.model(given), Y, err_msg=type(given).__name__)
            np.testing.assert_array_equal(self.model(x=given), Y)
        self.assertEqual(list(self.model.run({"x": X})), ["y"])

    def test_paths(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "mädel.onnx")
            path.write_bytes(models.add())
            for form in (path, str(path), os.fsencode(path).decode()):
                np.testing.assert_array_equal(ai_vmm.deploy(form)(X), Y)
        with self.assertRaises(TypeError):
            ai_vmm.deploy(3)

    def test_inputs_are_read_in_place_and_outputs_own_their_memory(self):
        big = np.ones((1 << 20, 3), np.float32)
        self.assertEqual(ai_vmm.Value.of(big).address, big.ctypes.data)
        out = self.model(big)
        self.assertTrue(out.flags.writeable and out.flags.c_contiguous)
        self.assertFalse(np.shares_memory(out, big))
        self.assertIsNotNone(out.base, "the array must take over the tensor's memory, not copy it")
        address = out.__array_interface__["data"][0]
        self.assertEqual(address % 64, 0)
        out[:] = 7  # nobody else's memory
        np.testing.assert_array_equal(self.model(big)[0], [2, 3, 4])

    def test_results_never_alias(self):
        graph = models.model(
            [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Identity", ["x"], ["b"]),
             helper.make_node("Identity", ["w"], ["c"])],
            [models.tensor("x", ["N"])], [models.tensor(n, None) for n in "abc"],
            [helper.make_tensor("w", T.FLOAT, [3], [1, 2, 3])])
        deployment = ai_vmm.deploy(graph)
        x = np.ones(3, np.float32)
        out = deployment(x)
        for array in out.values():
            array[:] = 9
        np.testing.assert_array_equal(x, 1)
        np.testing.assert_array_equal(deployment(x)["c"], [1, 2, 3])
        self.assertFalse(np.shares_memory(out["a"], out["b"]))

    def test_out(self):
        y = np.zeros((2, 3), np.float32)
        result = self.model.run({"x": X}, out={"y": y})
        self.assertIs(result["y"], y)
        np.testing.assert_array_equal(y, Y)
        for wrong in (np.zeros((3, 3), np.float32), np.zeros((2, 3)), np.zeros((3, 2), np.float32).T, [0]):
            with self.assertRaises(ai_vmm.InvalidArgument):
                self.model.run({"x": X}, out={"y": wrong})
        y.flags.writeable = False
        with self.assertRaises(ai_vmm.InvalidArgument):
            self.model.run({"x": X}, out={"y": y})
        with self.assertRaisesRegex(ai_vmm.InvalidArgument, "y f32"):
            self.model.run({"x": X}, out={"z": y})

    def test_errors_are_our_sentences(self):
        for make, error, text in (
                (lambda: self.model(X.astype("f8")), ai_vmm.InvalidArgument, 'Input "x" is f64; the model takes f32.'),
                (lambda: self.model(X[0]), ai_vmm.InvalidArgument, "has shape"),
                (lambda: self.model([1.5, "a"]), ai_vmm.InvalidArgument, "the model takes f32"),
                (lambda: self.model(y=X), ai_vmm.InvalidArgument, 'no input "y"'),
                (lambda: self.model(X, x=X), ai_vmm.InvalidArgument, "given twice"),
                (lambda: self.model(X, X), ai_vmm.InvalidArgument, "2 are given"),
                (lambda: self.model(), ai_vmm.InvalidArgument, "Missing inputs: x f32"),
                (lambda: self.model(np.zeros((2, 3), "M8[s]")), ai_vmm.InvalidArgument, "datetime64"),
                (lambda: ai_vmm.deploy("/nowhere.onnx"), ai_vmm.NotFound, "/nowhere.onnx"),
                (lambda: ai_vmm.deploy("/nowhere.onnx"), FileNotFoundError, "cannot be read"),
                (lambda: ai_vmm.deploy(b"no model at all"), ai_vmm.Error, "."),
                (lambda: ai_vmm.deploy(models.add(), device="abacus"), ai_vmm.Error, "abacus"),
                (lambda: ai_vmm.deploy(models.add(), precision="f3"), ai_vmm.InvalidArgument, "f3")):
            with self.assertRaisesRegex(error, text):
                make()

    def test_the_memory_limit_holds(self):
        small = ai_vmm.deploy(models.add(), memory_limit=1 << 16)
        with self.assertRaises(MemoryError) as caught:
            small(np.zeros((1 << 20, 3), np.float32))
        self.assertEqual(caught.exception.code, "resource_exhausted")

    def test_strict(self):
        mean = models.model([helper.make_node("Identity", ["x"], ["y"])], [models.tensor("x", [2])],
                            [models.tensor("y", [2])])
        self.assertEqual(ai_vmm.deploy(mean, strict=True, device="cpu").report().fallbacks, [])

    def test_memory_returns(self):
        big = np.ones((1 << 18, 3), np.float32)
        tracked = [self.model(big) for _ in range(3)]
        del tracked
        gc.collect()
        before = resident()
        for _ in range(200):
            self.model(big)
        self.assertLess(resident() - before, 20 << 20)


def resident() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Types(unittest.TestCase):
    def test_every_type_passes_through(self):
        for onnx_type, dtype in ((T.FLOAT, "f4"), (T.DOUBLE, "f8"), (T.FLOAT16, "f2"), (T.INT8, "i1"), (T.UINT8, "u1"),
                                 (T.INT16, "i2"), (T.UINT16, "u2"), (T.INT32, "i4"), (T.UINT32, "u4"), (T.INT64, "i8"),
                                 (T.UINT64, "u8"), (T.BOOL, "?"), (T.COMPLEX64, "c8"), (T.COMPLEX128, "c16"),
                                 (T.BFLOAT16, ml_dtypes.bfloat16), (T.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
                                 (T.FLOAT8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz), (T.FLOAT8E5M2, ml_dtypes.float8_e5m2),
                                 (T.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz), (T.INT4, ml_dtypes.int4),
                                 (T.UINT4, ml_dtypes.uint4)):
            with self.subTest(T.DataType.Name(onnx_type)):
                x = np.array([1, 0, 1, 2, 3]).astype(dtype)
                deployment = ai_vmm.deploy(models.identity(onnx_type))
                y = deployment(x)
                self.assertEqual(y.dtype, x.dtype)
                np.testing.assert_array_equal(y, x)
                self.assertEqual(deployment.inputs[0].dtype, x.dtype)

    def test_negative_four_bit_integers_keep_their_sign(self):
        x = np.array([-8, -1, 7], ml_dtypes.int4)
        np.testing.assert_array_equal(ai_vmm.deploy(models.identity(T.INT4))(x), x)

    def test_strings(self):
        deployment = ai_vmm.deploy(models.identity(T.STRING))
        for given in (np.array(["a", "bé"]), np.array(["a", "bé"], object), ["a", "bé"],
                      np.array(["a".encode(), "bé".encode()])):
            self.assertEqual(deployment(given).tolist(), ["a", "bé"])
        raw = np.array([b"\xff\x00x", "é"], object)
        out = deployment(raw)
        self.assertEqual(out[0].encode("utf-8", "surrogateescape"), b"\xff\x00x")
        self.assertEqual(deployment(out).tolist(), out.tolist())

    def test_scalars_empties_and_sequences(self):
        scalar = ai_vmm.deploy(models.identity(T.FLOAT, ()))
        for given in (3, 3.0, np.float32(3), np.array(3, np.float32)):
            self.assertEqual(scalar(given), 3)
        self.assertEqual(scalar(3).shape, ())
        with self.assertRaises(ai_vmm.InvalidArgument):
            ai_vmm.deploy(models.identity(T.INT64, ()))(1.5)  # never rounded silently
        self.assertEqual(ai_vmm.deploy(models.add())(np.zeros((0, 3), np.float32)).shape, (0, 3))
        pair = models.model([helper.make_node("SequenceConstruct", ["x", "x"], ["q"])], [models.tensor("x", ["N"])],
                            [helper.make_tensor_sequence_value_info("q", T.FLOAT, None)])
        x = np.ones(2, np.float32)
        first, second = ai_vmm.deploy(pair)(x)
        first[:] = 5
        np.testing.assert_array_equal(second, 1)
        np.testing.assert_array_equal(x, 1)
        length = models.model([helper.make_node("SequenceLength", ["q"], ["n"])],
                              [helper.make_tensor_sequence_value_info("q", T.FLOAT, None)],
                              [models.tensor("n", [], T.INT64)])
        deployment = ai_vmm.deploy(length)
        self.assertEqual(deployment([x, x, x]), 3)
        self.assertEqual(deployment([]), 0)
        with self.assertRaisesRegex(ai_vmm.InvalidArgument, "give a list"):
            deployment(x)


class Overrides(unittest.TestCase):
    def test_a_default_can_be_replaced_for_a_run(self):
        model = ai_vmm.deploy(models.model(
            [helper.make_node("Add", ["x", "w"], ["y"])], [models.tensor("x", ["N", 3]), models.tensor("w", [3])],
            [models.tensor("y", ["N", 3])], [helper.make_tensor("w", T.FLOAT, [3], [1, 2, 3])]))
        self.assertEqual([p.name for p in model.overridable], ["w"])
        w, y = np.float32([5, 5, 5]), np.zeros((2, 3), np.float32)
        np.testing.assert_array_equal(model(X), Y)
        np.testing.assert_array_equal(model(X, w=w), X + 5)
        np.testing.assert_array_equal(model.run({"x": X, "w": w}, out={"y": y})["y"], X + 5)
        np.testing.assert_array_equal(y, X + 5)
        np.testing.assert_array_equal(model.run_async(X, w=w).result(10)["y"], X + 5)
        np.testing.assert_array_equal(model(X), Y)
        with self.assertRaises(ai_vmm.InvalidArgument):
            model(X, w=X)


class Facts(unittest.TestCase):
    def test_ports_and_metadata(self):
        deployment = ai_vmm.deploy(models.add())
        port = deployment.inputs[0]
        self.assertEqual((port.name, port.type, port.shape, port.dtype, port.optional),
                         ("x", "f32[N,3]", ("N", 3), np.float32, False))
        self.assertEqual(deployment.metadata["author"], "us")
        self.assertIn("Add", deployment.graph_text)
        self.assertTrue(deployment.plan_text)

    def test_report_and_explanation(self):
        deployment = ai_vmm.deploy(models.add())
        report = deployment.report()
        self.assertEqual(sum(c.chosen for c in report.candidates), 1)
        self.assertEqual(json.loads(report.to_json()), report.as_dict())
        self.assertEqual(report.nodes, 1)
        with self.assertRaises(AttributeError):
            report.nothing
        explanation = deployment.explain()
        chosen = next(c for c in report.candidates if c.chosen)
        self.assertIn(chosen.reason, str(explanation))
        self.assertNotIn("\033", str(explanation))  # no terminal here
        self.assertIn("\033[1m", explanation.text(colour=True))
        self.assertIn("<table>", explanation._repr_html_())

    def test_a_model_name_cannot_inject_markup(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "<script>.onnx")
            path.write_bytes(models.add())
            self.assertNotIn("<script>", ai_vmm.deploy(path).explain()._repr_html_())

    def test_devices(self):
        devices = ai_vmm.devices()
        self.assertIn("cpu", [d.backend for d in devices if d.usable])
        for d in devices:
            self.assertTrue(d.usable or d.problem)
        np.testing.assert_array_equal(ai_vmm.deploy(models.add(), device="reference")(X), Y)


class Concurrency(unittest.TestCase):
    def test_many_threads(self):
        deployment = ai_vmm.deploy(models.add())
        wrong = []

        def work(k: int) -> None:
            x = np.full((k + 1, 3), k, np.float32)
            for _ in range(200):
                if not np.array_equal(deployment(x), x + np.float32([1, 2, 3])):
                    wrong.append(k)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])

    def test_async(self):
        deployment = ai_vmm.deploy(models.add())

        async def main():
            runs = [deployment.run_async(X + k) for k in range(5)]
            return [(await r)["y"] for r in runs]

        for k, y in enumerate(asyncio.run(main())):
            np.testing.assert_array_equal(y, Y + k)
        np.testing.assert_array_equal(deployment.run_async(x=X).result(10)["y"], Y)
        with self.assertRaises(ai_vmm.InvalidArgument):
            deployment.run_async(X[0]).result(10)

    def test_a_run_can_be_cancelled(self):
        run = ai_vmm.deploy(models.endless()).run_async(1 << 60, np.zeros((64, 64), np.float32))
        time.sleep(0.05)
        self.assertFalse(run.done())
        run.cancel()
        with self.assertRaises(ai_vmm.Cancelled):
            run.result(30)

        async def impatient():
            deployment = ai_vmm.deploy(models.endless())
            await asyncio.wait_for(deployment.run_async(1 << 60, np.zeros((64, 64), np.float32)), 0.05)

        with self.assertRaises(asyncio.TimeoutError):
            asyncio.run(impatient())

    def test_the_gil_is_free_while_a_model_runs(self):
        run = ai_vmm.deploy(models.endless()).run_async(1 << 60, np.zeros((64, 64), np.float32))
        count = 0
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            count += 1
        run.cancel()
        self.assertGreater(count, 100)

    def test_keyboard_interrupt(self):
        deployment = ai_vmm.deploy(models.endless())
        zeros = np.zeros((64, 64), np.float32)
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with self.assertRaises(KeyboardInterrupt):
            deployment(1 << 60, zeros)
        timer.join()
        self.assertEqual(deployment(1, zeros).shape, (64, 64))
        # A handler of the program's own that raises nothing only takes note: the run is not lost.
        noted = []
        old = signal.signal(signal.SIGINT, lambda *_: noted.append(1))
        try:
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            y = deployment(60_000, zeros)
            timer.join()
        finally:
            signal.signal(signal.SIGINT, old)
        self.assertEqual(noted, [1])
        np.testing.assert_array_equal(y, zeros)

    def test_a_forked_process_runs_its_parents_deployment(self):
        deployment = ai_vmm.deploy(models.endless())
        x = np.random.default_rng(0).standard_normal((64, 64), np.float32) / 8
        expected = deployment(3, x)
        deployment.run_async(3, x).result(10)
        child = os.fork()
        if child == 0:
            same = np.array_equal(deployment(3, x), expected)
            same = same and np.array_equal(deployment.run_async(3, x).result(10)["y"], expected)
            os._exit(0 if same else 1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)

    def test_batches(self):
        deployment = ai_vmm.deploy(models.add())
        samples = [{"x": np.full((k % 3 + 1, 3), k, np.float32)} for k in range(7)]
        for batch_size in (0, 1, 3, 100):
            results = deployment.run_batch(samples, batch_size=batch_size)
            for s, r in zip(samples, results, strict=True):
                np.testing.assert_array_equal(r["y"], s["x"] + np.float32([1, 2, 3]))
        self.assertEqual(deployment.run_batch([]), [])
        fixed = ai_vmm.deploy(models.identity(T.FLOAT, (1, 2)))
        self.assertEqual([r["y"].tolist() for r in fixed.run_batch([{"x": [[1, 2]]}, {"x": [[3, 4]]}])],
                         [[[1, 2]], [[3, 4]]])
        total = models.model([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], [models.tensor("x", ["N", 3])],
                             [models.tensor("y", [])])
        with self.assertRaisesRegex(ai_vmm.InvalidArgument, "no batch axis"):
            ai_vmm.deploy(total).run_batch([{"x": X}, {"x": X}])


if __name__ == "__main__":
    unittest.main()
