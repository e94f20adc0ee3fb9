"""The stand-in beside the real onnxruntime: the same calls, the same results, the same exceptions."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest
import warnings

import ml_dtypes
import models
import numpy as np
import onnxruntime as real
from onnx import TensorProto as T
from onnx import helper

import ai_vmm.onnxruntime as ours

X = np.arange(6, dtype=np.float32).reshape(2, 3)
CPU = ["CPUExecutionProvider"]
real.set_default_logger_severity(4)


def quiet(ort):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return options


def outcome(call):
    """The result as plain data, or the class and the builtin base of the exception."""
    try:
        return plain(call())
    except Exception as e:
        return f"raises {type(e).__name__}"


def plain(value):
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return (type(value).__name__, value)


class Same(unittest.TestCase):
    """Each `both(f)` calls f(onnxruntime) and f(the stand-in)."""

    maxDiff = None

    def both(self, call, *args):
        expected, got = outcome(lambda: call(real, *args)), outcome(lambda: call(ours, *args))
        self.assertEqual(got, expected)
        return got

    def run_both(self, model: bytes, feed, names=None):
        return self.both(lambda o: o.InferenceSession(model, quiet(o), providers=CPU).run(names, feed))


class Runs(Same):
    def test_names_and_inputs(self):
        for feed, names in (({"x": X}, None), ({"x": X}, ["y"]), ({"x": X}, []), ({"x": X}, ("y",)), ({"x": X}, ["y", "y"]),
                            ({"x": X.tolist()}, None), ({"x": np.asfortranarray(X)}, None), ({"x": X[:, ::-1]}, None),
                            ({"x": np.zeros((0, 3), np.float32)}, None)):
            with self.subTest(feed=feed, names=names):
                self.assertIsInstance(self.run_both(models.add(), feed, names), list)

    def test_wrong_calls_raise_the_same_exceptions(self):
        for feed, names, kind in (
                ({"x": X}, ["q"], "InvalidArgument"), ({}, None, "ValueError"), ({"k": X}, None, "ValueError"),
                ({"x": X, "k": X}, None, "InvalidArgument"), ({"x": X.astype("f8")}, None, "InvalidArgument"),
                ({"x": X.astype("i8")}, None, "InvalidArgument"), ({"x": X[0]}, None, "InvalidArgument"),
                ({"x": np.ones((2, 4), np.float32)}, None, "InvalidArgument"), ({"x": None}, None, "Fail"),
                ({"x": 3}, None, "RuntimeError"), ({"x": 3.0}, None, "RuntimeError"), ({"x": "a"}, None, "RuntimeError"),
                ({"x": np.float32(3)}, None, "RuntimeError"), ([X], None, "AttributeError"), ({"x": X}, "y", "TypeError")):
            with self.subTest(feed=feed, names=names):
                self.assertEqual(self.run_both(models.add(), feed, names), f"raises {kind}")

    def test_texts_of_the_common_mistakes(self):
        session = ours.InferenceSession(models.add(), providers=CPU)
        expected = real.InferenceSession(models.add(), providers=CPU)
        for feed, names in (({"x": X.astype("f8")}, None), ({"x": X[0]}, None), ({}, None), ({"k": X}, None),
                            ({"x": X}, ["q"]), ({"x": np.ones((2, 4), np.float32)}, None)):
            with self.assertRaises(Exception) as a, contextlib.redirect_stderr(None):
                expected.run(names, feed)
            with self.assertRaises(Exception) as b:
                session.run(names, feed)
            self.assertEqual(str(b.exception), str(a.exception))

    def test_every_type_that_onnxruntime_runs(self):
        for onnx_type, dtype in ((T.FLOAT, "f4"), (T.DOUBLE, "f8"), (T.FLOAT16, "f2"), (T.INT8, "i1"), (T.UINT8, "u1"),
                                 (T.INT16, "i2"), (T.UINT16, "u2"), (T.INT32, "i4"), (T.UINT32, "u4"), (T.INT64, "i8"),
                                 (T.UINT64, "u8"), (T.BOOL, "?")):
            x = np.array([1, 0, 2]).astype(dtype)
            self.run_both(models.identity(onnx_type), {"x": x})
            self.run_both(models.identity(onnx_type), {"x": x.tolist()})
            self.run_both(models.identity(T.FLOAT if onnx_type != T.FLOAT else T.INT64), {"x": x})

    def test_types_that_onnxruntime_cannot_take_from_numpy(self):
        x = np.array([1, 2], ml_dtypes.bfloat16)
        y = ours.InferenceSession(models.identity(T.BFLOAT16)).run(None, {"x": x})[0]
        np.testing.assert_array_equal(y, x)

    def test_strings(self):
        for x in (np.array(["a", "bé"]), np.array(["a", "b"], object), ["a", "b"], np.array([1, None], object)):
            self.run_both(models.identity(T.STRING), {"x": x})

    def test_scalars_and_sequences(self):
        self.run_both(models.identity(T.FLOAT, ()), {"x": np.array(3, np.float32)})
        pair = models.model([helper.make_node("SequenceConstruct", ["x", "x"], ["q"])], [models.tensor("x", ["N"])],
                            [helper.make_tensor_sequence_value_info("q", T.FLOAT, None)])
        self.run_both(pair, {"x": X[0]})
        length = models.model([helper.make_node("SequenceLength", ["q"], ["n"])],
                              [helper.make_tensor_sequence_value_info("q", T.FLOAT, None)],
                              [models.tensor("n", [], T.INT64)])
        for q in ([X, X], [], X):
            self.run_both(length, {"q": q})

    def test_optionals(self):
        has = models.model([helper.make_node("OptionalHasElement", ["o"], ["y"])],
                           [helper.make_value_info("o", helper.make_optional_type_proto(
                               helper.make_tensor_type_proto(T.FLOAT, [3])))], [models.tensor("y", [], T.BOOL)])
        for feed in ({"o": None}, {}, {"o": X[0]}):
            self.run_both(has, feed)

    def test_sizes_of_one_name_may_differ(self):
        concat = models.model([helper.make_node("Concat", ["a", "b"], ["y"], axis=0)],
                              [models.tensor("a", ["N", 3]), models.tensor("b", ["N", 3])], [models.tensor("y", None)])
        self.run_both(concat, {"a": X, "b": X})
        self.run_both(concat, {"a": X, "b": X[:1]})
        product = models.model([helper.make_node("MatMul", ["a", "b"], ["y"])],
                               [models.tensor("a", ["N", "K"]), models.tensor("b", ["L", "M"])],
                               [models.tensor("y", ["N", "M"])])
        self.assertEqual(self.run_both(product, {"a": X, "b": np.ones((5, 3), np.float32)}), "raises Fail")

    def test_defaults_can_be_overridden(self):
        model = models.model([helper.make_node("Add", ["x", "w"], ["y"])],
                             [models.tensor("x", ["N", 3]), models.tensor("w", [3])], [models.tensor("y", ["N", 3])],
                             [helper.make_tensor("w", T.FLOAT, [3], [1, 2, 3])])
        self.run_both(model, {"x": X})
        self.run_both(model, {"x": X, "w": X[0]})
        self.run_both(model, {"x": X, "w": X})

        def facts(o):
            s = o.InferenceSession(model, providers=CPU)
            return [[(a.name, a.type, a.shape) for a in k] for k in (s.get_inputs(), s.get_overridable_initializers())]

        self.both(facts)

    def test_results_belong_to_the_caller(self):
        session = ours.InferenceSession(models.add(), providers=CPU)
        a, b = session.run(["y", "y"], {"x": X})
        a[:] = 0
        self.assertNotEqual(b[0, 0], 0)

    def test_many_threads(self):
        session = ours.InferenceSession(models.add(), providers=CPU)
        wrong = []

        def work(k):
            x = np.full((k + 1, 3), k, np.float32)
            for _ in range(300):
                if not np.array_equal(session.run(None, {"x": x})[0], x + np.float32([1, 2, 3])):
                    wrong.append(k)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])

    def test_terminate(self):
        def ended(o):
            options = o.RunOptions()
            options.terminate = True
            return o.InferenceSession(models.add(), providers=CPU).run(None, {"x": X}, options)

        self.assertEqual(self.both(ended), "raises Fail")
        options = ours.RunOptions()
        session = ours.InferenceSession(models.endless(), providers=CPU)
        threading.Timer(0.05, lambda: setattr(options, "terminate", True)).start()
        with self.assertRaisesRegex(ours.capi.onnxruntime_pybind11_state.Fail, "terminate flag"):
            session.run(None, {"n": np.array(1 << 60), "x": np.zeros((64, 64), np.float32)}, options)

    def test_run_async(self):
        def run(o, x):
            got, done = [], threading.Event()

            def back(results, user_data, text):
                got.extend([plain(results), user_data, text])
                done.set()

            o.InferenceSession(models.add(), quiet(o), providers=CPU).run_async(None, {"x": x}, back, "mine")
            self.assertTrue(done.wait(10))
            return got

        self.both(run, X)
        self.both(run, X.astype("f8"))


class Loading(Same):
    def test_sources(self):
        with tempfile.TemporaryDirectory() as folder:
            files = {"good": models.add(), "garbage": b"hello world, no model", "empty": b"",
                     "cut": models.add()[:60], "unknown": models.model(
                         [helper.make_node("NoSuchOperator", ["x"], ["y"])], [models.tensor("x", [2])],
                         [models.tensor("y", [2])])}
            for name, data in files.items():
                path = pathlib.Path(folder, name)
                path.write_bytes(data)
                for source in (str(path), path, data):
                    with self.subTest(name=name, source=type(source).__name__):
                        self.both(lambda o, s: o.InferenceSession(s, quiet(o), providers=CPU).get_inputs()[0].name, source)
            for source in (pathlib.Path(folder, "nothing"), folder, None, 3, bytearray(models.add())):
                with self.subTest(source=source):
                    self.both(lambda o, s: o.InferenceSession(s, quiet(o), providers=CPU).get_inputs()[0].name, source)

    def test_facts(self):
        unknown = models.model([helper.make_node("Relu", ["x"], ["y"])], [models.tensor("x", [None, "a-b", 3])],
                               [models.tensor("y", [None, "a-b", 3])], key="value")
        for model in (models.add(), unknown, models.identity(T.STRING), models.identity(T.FLOAT, ()),
                      models.identity(T.FLOAT, (2, 3)), models.identity(T.BFLOAT16)):
            def facts(o):
                s = o.InferenceSession(model, providers=CPU)
                m = s.get_modelmeta()
                return [[(a.name, a.type, a.shape, str(a)) for a in k] for k in (s.get_inputs(), s.get_outputs())] + [
                    m.producer_name, m.graph_name, m.domain, m.description, m.graph_description, m.version,
                    m.custom_metadata_map, s.get_providers(), s.end_profiling(), s.get_profiling_start_time_ns()]

            self.both(facts)

    def test_free_dimensions(self):
        def shape(o):
            options = quiet(o)
            options.add_free_dimension_override_by_name("N", 2)
            s = o.InferenceSession(models.add(), options, providers=CPU)
            return [s.get_inputs()[0].shape, plain(s.run(None, {"x": X})), outcome(lambda: s.run(None, {"x": X[:1]}))]

        self.both(shape)

    def test_providers(self):
        self.assertIn("CPUExecutionProvider", ours.get_available_providers())
        self.assertIn("AiVmmExecutionProvider", ours.get_available_providers())
        automatic = ours.InferenceSession(models.add())
        self.assertEqual(automatic.get_providers(), ["AiVmmExecutionProvider", "CPUExecutionProvider"])
        reference = ours.InferenceSession(models.add(), providers=[("AiVmmExecutionProvider", {"device": "reference"})])
        self.assertEqual(reference.deployment.report().backend, "reference")
        reference.set_providers(CPU)
        self.assertEqual(reference.deployment.report().backend, "cpu")
        np.testing.assert_array_equal(reference.run(None, {"x": X})[0], X + np.float32([1, 2, 3]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            absent = ours.InferenceSession(models.add(), providers=["NoSuchProvider", "CPUExecutionProvider"])
        self.assertEqual(absent.get_providers(), CPU)
        self.assertIn("NoSuchProvider", str(caught[0].message))


class Options(Same):
    def test_defaults_and_types(self):
        names = [n for n in dir(real.SessionOptions()) if not n.startswith("_")
                 and not callable(getattr(real.SessionOptions(), n))]
        for name in names:
            default = getattr(real.SessionOptions(), name)
            self.assertEqual(getattr(ours.SessionOptions(), name), getattr(default, "value", default), name)
            for value in ("text", 3, True, 2.5, None):
                if name in ("enable_profiling", "optimized_model_filepath"):
                    continue  # refused, see test_refusals
                with self.subTest(name=name, value=value):
                    self.both(lambda o: setattr(o.SessionOptions(), name, value))
        self.both(lambda o: setattr(o.SessionOptions(), "no_such_option", 1))
        for name in ("log_severity_level", "log_verbosity_level", "logid", "only_execute_path_to_fetches", "terminate"):
            self.assertEqual(getattr(ours.RunOptions(), name), getattr(real.RunOptions(), name))
        self.both(lambda o: setattr(o.RunOptions(), "no_such_option", 1))

    def test_every_public_name_is_there(self):
        for theirs, mine in ((real, ours), (real.InferenceSession, ours.InferenceSession),
                             (real.SessionOptions, ours.SessionOptions), (real.RunOptions, ours.RunOptions),
                             (real.OrtValue, ours.OrtValue), (real.IOBinding, ours.IOBinding),
                             (real.OrtDevice, ours.OrtDevice)):
            for name in dir(theirs):
                if name.startswith("_") or name in ("contextlib", "import_capi_exception", "onnxruntime_validation",
                                                    "release_captured_graph"):
                    continue
                self.assertTrue(hasattr(mine, name), f"{getattr(theirs, '__name__', theirs)}.{name}")

    def test_entries(self):
        for make in ("SessionOptions", "RunOptions"):
            kind = make.replace("Options", "").lower()

            def entry(o):
                options = getattr(o, make)()
                getattr(options, f"add_{kind}_config_entry")("some.key", "1")
                return [getattr(options, f"get_{kind}_config_entry")("some.key"),
                        outcome(lambda: getattr(options, f"get_{kind}_config_entry")("other"))]

            self.both(entry)

    def test_enumerations(self):
        for enum in ("GraphOptimizationLevel", "ExecutionMode", "ExecutionOrder"):
            for name in getattr(real, enum).__members__:
                self.both(lambda o: [f(getattr(getattr(o, enum), name)) for f in (int, str, repr)])

    def test_refusals(self):
        refused = ours.capi.onnxruntime_pybind11_state.NotImplemented
        options = ours.SessionOptions()
        session = ours.InferenceSession(models.add(), providers=CPU)
        for call in (lambda: setattr(options, "enable_profiling", True),
                     lambda: setattr(options, "optimized_model_filepath", "x.onnx"),
                     lambda: options.add_session_config_entry("session.set_denormal_as_zero", "1"),
                     lambda: options.register_custom_ops_library("x.so"),
                     lambda: options.add_initializer("w", ours.OrtValue.ortvalue_from_numpy(X)),
                     lambda: ours.OrtArenaCfg(1, 1, 1, 1), lambda: ours.ModelCompiler(options, b""),
                     lambda: ours.LoraAdapter(), lambda: ours.get_ep_devices(),
                     lambda: ours.SparseTensor.sparse_coo_from_numpy(), lambda: session.set_ep_dynamic_options({"a": "b"}),
                     lambda: session.get_provider_graph_assignment_info()):
            with self.assertRaisesRegex(refused, "not part of AI VMM"):
                call()
        with self.assertRaises(TypeError):
            ours.InferenceSession(models.add(), no_such_argument=1)

    def test_strict(self):
        options = ours.SessionOptions()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.intra_op_num_threads = 1
        session = ours.InferenceSession(models.add(), options, providers=CPU)
        self.assertEqual(session.deployment.report().threads, 1)


class Values(Same):
    def test_ortvalue(self):
        def facts(o):
            x = X.copy()
            v = o.OrtValue.ortvalue_from_numpy(x)
            before = [v.shape(), v.data_type(), v.element_type(), v.device_name(), v.has_value(), v.is_tensor(),
                      v.is_sparse_tensor(), v.is_tensor_sequence(), v.tensor_size_in_bytes(), plain(v.numpy()),
                      v.data_ptr() == x.ctypes.data, v.__dlpack_device__()]
            v.update_inplace(x * 2)
            return before + [plain(x), plain(v.numpy()), plain(np.from_dlpack(v)), plain(np.asarray(v))]

        self.both(facts)
        self.both(lambda o: o.OrtValue.ortvalue_from_shape_and_type([2], 16).data_type())
        self.both(lambda o: o.OrtValue.ortvalue_from_shape_and_type([2, 0], np.int8).shape())
        self.both(lambda o: o.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ones(2, np.uint16), 16).data_type())
        self.both(lambda o: plain(o.OrtValue.from_dlpack(X).numpy()))
        for wrong in (lambda o: o.OrtValue.ortvalue_from_numpy(np.array(["a"])),
                      lambda o: o.OrtValue.ortvalue_from_numpy([1.0]),
                      lambda o: o.OrtValue.ortvalue_from_numpy(X, "cuda"),
                      lambda o: o.OrtValue.ortvalue_from_numpy(X, "abacus"),
                      lambda o: o.OrtValue.ortvalue_from_numpy(X.copy()).update_inplace(X[0]),
                      lambda o: o.OrtDevice.make("abacus", 0)):
            self.assertIn("raises", self.both(wrong))

    def test_runs_with_values(self):
        def run(o):
            s = o.InferenceSession(models.add(), providers=CPU)
            v = o.OrtValue.ortvalue_from_numpy(X.copy())
            return [plain(r.numpy()) for names in (None, ["y"]) for r in s.run_with_ort_values(names, {"x": v})] + [
                plain(s.run(None, {"x": v}))]

        self.both(run)

    def test_binding(self):
        def run(o):
            s = o.InferenceSession(models.add(), quiet(o), providers=CPU)
            b = s.io_binding()
            x, y = X.copy(), np.zeros((2, 3), np.float32)
            b.bind_cpu_input("x", x)
            b.bind_output("y")
            s.run_with_iobinding(b)
            seen = [plain(b.copy_outputs_to_cpu()), [plain(v.numpy()) for v in b.get_outputs()]]
            b.bind_output("y", "cpu", 0, np.float32, (2, 3), y.ctypes.data)
            x += 1
            s.run_with_iobinding(b)
            seen.append(plain(y))
            b.bind_input("x", "cpu", 0, np.float32, (2, 3), X.ctypes.data)
            s.run_with_iobinding(b)
            seen.append(plain(y))
            b.bind_ortvalue_input("x", o.OrtValue.ortvalue_from_numpy(x))
            b.bind_ortvalue_output("y", o.OrtValue.ortvalue_from_numpy(y))
            s.run_with_iobinding(b)
            seen += [plain(y), len(b.get_outputs_as_ortvaluevector())]
            small = np.zeros((1, 3), np.float32)
            b.bind_output("y", "cpu", 0, np.float32, (1, 3), small.ctypes.data)
            seen.append(outcome(lambda: s.run_with_iobinding(b)))
            seen.append(outcome(lambda: b.bind_cpu_input("k", x)))
            b.bind_cpu_input("x", x.astype("f8"))
            seen.append(outcome(lambda: s.run_with_iobinding(b)))
            b.clear_binding_inputs()
            b.clear_binding_outputs()
            return seen + [outcome(lambda: s.run_with_iobinding(b))]

        self.both(run)


class InItsPlace(unittest.TestCase):
    SCRIPT = """
import importlib.metadata, importlib.util, sys
assert importlib.util.find_spec("onnxruntime") is not None
import onnxruntime, onnxruntime.capi._pybind_state as state
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from onnxruntime.capi.onnxruntime_inference_collection import InferenceSession
assert state.InvalidArgument is InvalidArgument and InferenceSession is onnxruntime.InferenceSession
assert importlib.metadata.version("onnxruntime") == onnxruntime.__version__
try:
    import onnxruntime.quantization
except ModuleNotFoundError as e:
    assert "not part of AI VMM" in str(e), e
else:
    raise SystemExit("onnxruntime.quantization came from somewhere")
assert onnxruntime.get_build_info().startswith("AI VMM"), onnxruntime.__file__
assert __name__ == "__main__"
print("in place", sys.argv[1:])
"""

    def test_command(self):
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder, "program.py")
            script.write_text(self.SCRIPT)
            for command in ([str(script), "a", "b"], ["-c", self.SCRIPT, "a", "b"], ["-m", "program", "a", "b"]):
                done = subprocess.run([sys.executable, "-m", "ai_vmm.as_onnxruntime", *command], cwd=folder, text=True,
                                      capture_output=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(done.stdout, "in place ['a', 'b']\n")

    def test_switch(self):
        line = pathlib.Path(__file__).parents[2].joinpath("python/ai_vmm_as_onnxruntime.pth").read_text()
        for value, expected in (("1", True), ("0", False), (None, False)):
            env = {k: v for k, v in os.environ.items() if k != "AI_VMM_AS_ONNXRUNTIME"}
            env.update({"AI_VMM_AS_ONNXRUNTIME": value} if value else {})
            done = subprocess.run([sys.executable, "-c", f"{line}\nimport onnxruntime; print(onnxruntime.get_build_info().startswith('AI VMM'))"],
                                  env=env, text=True, capture_output=True)
            self.assertEqual(done.stdout.strip(), str(expected), done.stderr)

    def test_too_late_is_an_error(self):
        done = subprocess.run([sys.executable, "-c", "import onnxruntime, ai_vmm.as_onnxruntime as a; a.install()"],
                              text=True, capture_output=True)
        self.assertIn("imported already", done.stderr)


if __name__ == "__main__":
    unittest.main()
