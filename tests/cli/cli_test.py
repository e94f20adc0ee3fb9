"""The contract of aivmm that scripts rely on: options, exit codes, JSON names, messages.

Run as: cli_test.py BUILD_FOLDER [unittest arguments]
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build").resolve()
AIVMM = BUILD / "bin" / "aivmm"


def value(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs, outputs, **metadata):
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(made, metadata)
    return made


class Cli(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.at = pathlib.Path(self.folder.name)
        add = model(
            [helper.make_node("Add", ["x", "y"], ["z"]), helper.make_node("Neg", ["z"], ["w"])],
            [value("x", TensorProto.FLOAT, ["N", 3]), value("y", TensorProto.FLOAT, [3])],
            [value("z", TensorProto.FLOAT, ["N", 3]), value("w", TensorProto.FLOAT, ["N", 3])],
        )
        self.add = self.save("add.onnx", add)

    def save(self, name, made):
        onnx.save(made, self.at / name)
        return str(self.at / name)

    def aivmm(self, *words, expect=0, **environment):
        env = {k: v for k, v in os.environ.items() if not k.startswith("AI_VMM_")}
        env.update(HOME=str(self.at), XDG_CONFIG_HOME=str(self.at / "none"), **environment)
        done = subprocess.run([AIVMM, *map(str, words)], cwd=self.at, env=env, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, expect, f"{words}\n{done.stdout}\n{done.stderr}")
        self.assertNotIn("\033", done.stdout + done.stderr)
        if expect:
            self.assertIn("aivmm: error: ", done.stderr)
        return done

    def run_json(self, *words, **more):
        return json.loads(self.aivmm("run", *words, "--json", **more).stdout)

    # ------------------------------------------------------------ usage

    def test_help_and_version(self):
        self.assertIn("inspect", self.aivmm("--help").stdout)
        self.assertIn("--memory-limit", self.aivmm("help", "run").stdout)
        self.assertEqual(self.aivmm("run", "--help").stdout, self.aivmm("help", "run").stdout)
        self.assertRegex(self.aivmm("--version").stdout, r"^aivmm \d+\.\d+\.\d+\n$")

    def test_wrong_usage_exits_2_and_names_the_way_out(self):
        for words, hint in [
            (["rnu"], "did you mean run?"),
            (["run"], "wants MODEL"),
            (["run", self.add, "--repeet", "3"], "did you mean --repeat?"),
            (["run", self.add, "--repeat", "0"], "from 1"),
            (["run", self.add, "--repeat", "many"], "whole number"),
            (["run", self.add, "--repeat"], "wants a value"),
            (["run", self.add, "--json", "--json"], "twice"),
            (["run", self.add, "--json=yes"], "takes no value"),
            (["run", self.add, "--threads", "0"], "threads"),
            (["run", self.add, "--precision", "f12"], "f32|bf16|int8|auto"),
            (["run", self.add, "--memory-limit", "lots"], "512M"),
            (["run", self.add, "--backend", "referense"], "Did you mean reference?"),
            (["run", self.add, "more"], "one argument too many"),
            (["run", "absent.onnx"], "absent.onnx"),
            (["run", self.at], "folder"),
            (["run", self.add, "--shape", "x=3xx", "--random", "1"], "--shape"),
            (["run", self.add, "--shape", "q=3", "--random", "1"], "its inputs are x, y"),
            (["run", self.add, "--shape", "y=4", "--random", "1"], "f32[3]"),
            (["run", self.add, "--random", "-1"], "--random"),
            (["run", self.add, "--random", "1", "--output", "x.txt"], "FILE.npz"),
            (["run", self.add, "--random", "1", "--output", "q=x.npy"], "its outputs are z, w"),
            (["run", self.add, "--input", "x=absent.npy"], "absent.npy"),
            (["run", self.add, "--input", "absent.npy"], "NAME=absent.npy"),
            (["completion", "tcsh"], "bash, zsh and fish"),
            (["config", "thread"], "did you mean threads?"),
            (["ops", "Covn"], "did you mean Conv?"),
        ]:
            with self.subTest(words=words):
                self.assertIn(hint, self.aivmm(*words, expect=2).stderr)

    def test_no_command_is_wrong_usage(self):
        done = subprocess.run([AIVMM], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("Usage:", done.stderr)

    def test_missing_inputs_are_listed(self):
        error = self.aivmm("run", self.add, expect=2).stderr
        self.assertIn("x f32[N,3], y f32[3]", error)
        self.assertIn("--random", error)
        np.save(self.at / "x.npy", np.zeros((2, 3), np.float32))
        error = self.aivmm("run", self.add, "--input", "x=x.npy", expect=2).stderr
        self.assertNotIn("x f32", error)
        self.assertIn("y f32[3]", error)

    def test_a_closed_output_is_a_failure(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([AIVMM, "ops"], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 1)

    # ------------------------------------------------------------ run

    def test_json_has_what_scripts_rely_on(self):
        j = self.run_json(self.add, "--random", 1, "--repeat", 5)
        for key in ("load_us", "compile_us", "first_us", "median_us", "p90_us", "p99_us", "min_us", "repeat",
                    "peak_rss_bytes", "arena_bytes", "fallback_nodes", "threads"):
            self.assertIsInstance(j[key], (int, float), key)
        for key in ("device", "backend", "precision"):
            self.assertIsInstance(j[key], str, key)
        self.assertEqual(j["repeat"], 5)
        self.assertLessEqual(j["min_us"], j["median_us"])
        self.assertLessEqual(j["median_us"], j["p90_us"])
        self.assertLessEqual(j["p90_us"], j["p99_us"])
        self.assertGreater(j["peak_rss_bytes"], 1 << 20)
        self.assertTrue(any(c["chosen"] and c["reason"] for c in j["candidates"]))

    def test_options_override_settings(self):
        j = self.run_json(self.add, "--random", 1, "--backend", "reference", "--threads", 1, "--precision", "f32",
                          "--warmup", 2, "--memory-limit", "64M", "--strict", "--deterministic", AI_VMM_BACKEND="cpu")
        self.assertEqual((j["backend"], j["threads"], j["warmup"], j["repeat"]), ("reference", 1, 2, 1))
        j = self.run_json(self.add, "--random", 1, "--backend", "auto", AI_VMM_BACKEND="reference")
        self.assertEqual(j["backend"], "cpu")
        self.assertEqual(self.run_json(self.add, "--random", 1, AI_VMM_BACKEND="reference")["backend"], "reference")

    def test_several_backends_are_chosen_among_by_measurement(self):
        nowhere = {"AI_VMM_ONNXRUNTIME_LIBRARY": "/nowhere/libonnxruntime.so"}
        j = self.run_json(self.add, "--random", 1, "--threads", 1, "--backend", "reference,cpu,onnxruntime", **nowhere)
        candidates = {c["backend"]: c for c in j["candidates"]}
        self.assertEqual(set(candidates), {"reference", "cpu", "onnxruntime"})
        chosen = [c for c in j["candidates"] if c["chosen"]]
        self.assertEqual([c["backend"] for c in chosen], [j["backend"]])
        measured = [candidates["reference"]["median_us"], candidates["cpu"]["median_us"]]
        self.assertEqual(chosen[0]["median_us"], min(measured))
        self.assertIn("/nowhere/libonnxruntime.so", candidates["onnxruntime"]["reason"])
        done = self.aivmm("run", self.add, "--random", 1, "--backend", "onnxruntime", expect=2, **nowhere)
        self.assertIn("pip install onnxruntime", done.stderr)
        self.assertIn("pip install onnxruntime", self.aivmm("devices", "--verbose", **nowhere).stdout)
        self.aivmm("run", self.add, "--random", 1, "--backend", "cpu,onnxruntme", expect=2)

    def test_unspecified_sizes_are_1_and_said(self):
        done = self.aivmm("run", self.add, "--random", 1, "--json")
        self.assertIn("N = 1", done.stderr)
        self.assertEqual(json.loads(done.stdout)["outputs"]["z"]["type"], "f32[1,3]")
        done = self.aivmm("run", self.add, "--random", 1, "--shape", "x=7x3", "--json")
        self.assertEqual(done.stderr, "")
        self.assertEqual(json.loads(done.stdout)["outputs"]["z"]["type"], "f32[7,3]")

    def test_random_is_seeded_and_distributed_as_promised(self):
        kinds = [("f", TensorProto.FLOAT), ("i", TensorProto.INT64), ("b", TensorProto.BOOL), ("h", TensorProto.FLOAT16)]
        path = self.save("id.onnx", model([helper.make_node("Identity", [n], ["o" + n]) for n, _ in kinds],
                                          [value(n, t, ["K"]) for n, t in kinds], [value("o" + n, t, ["K"]) for n, t in kinds]))
        shapes = [f"{n}=4000" for n, _ in kinds]
        out = []
        for seed in (1, 1, 2):
            self.aivmm("run", path, "--random", seed, "--shape", *shapes, "--output", "o.npz")
            out.append(dict(np.load(self.at / "o.npz")))
        np.testing.assert_array_equal(out[0]["of"], out[1]["of"])
        self.assertFalse(np.array_equal(out[0]["of"], out[2]["of"]))
        self.assertAlmostEqual(out[0]["of"].mean(), 0, delta=0.1)
        self.assertAlmostEqual(out[0]["of"].std(), 1, delta=0.1)
        self.assertEqual(set(np.unique(out[0]["oi"])), {0, 1})
        self.assertTrue(out[0]["ob"].all())
        self.assertEqual(out[0]["oh"].dtype, np.float16)

    def test_inputs_from_npz_and_npy_give_numpys_sum(self):
        x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
        np.savez_compressed(self.at / "in.npz", x=x, y=y)
        self.aivmm("run", self.add, "--input", "in.npz", "--output", "out.npz", "z=z.npy", "w=w.pb")
        out = np.load(self.at / "out.npz")
        np.testing.assert_array_equal(out["z"], x + y)
        np.testing.assert_array_equal(np.load(self.at / "z.npy"), x + y)
        pb = onnx.load_tensor(self.at / "w.pb")
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(pb), -x - y)
        np.save(self.at / "x.npy", np.asfortranarray(x))
        with open(self.at / "y.pb", "wb") as f:
            f.write(onnx.numpy_helper.from_array(y, "y").SerializeToString())
        self.aivmm("run", self.add, "--input", "x=x.npy", "y=y.pb", "--output=out.npz")
        np.testing.assert_array_equal(np.load(self.at / "out.npz")["z"], x + y)
        x.tofile(self.at / "x.bin")
        self.aivmm("run", self.add, "--input", "x=x.bin", "--input", "y=y.pb", "--output=out.npz")
        np.testing.assert_array_equal(np.load(self.at / "out.npz")["z"], x + y)

    def test_initialisers_that_are_inputs_may_be_overridden_as_in_onnxruntime(self):
        import onnxruntime as ort

        w = np.array([[1, 2], [3, 4]], np.float32)
        feeds = {"x": np.array([[5, 6]], np.float32), "w": np.array([[0, 1], [2, 3]], np.float32)}
        for name, array in feeds.items():
            np.save(self.at / f"{name}.npy", array)
        for ir_version, allowed in (3, False), (4, True), (10, True):
            graph = helper.make_graph(
                [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
                [value("x", TensorProto.FLOAT, ["N", 2]), value("w", TensorProto.FLOAT, [2, 2])],
                [value("y", TensorProto.FLOAT, ["N", 2])], [onnx.numpy_helper.from_array(w, "w")])
            made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=ir_version)
            path = self.save("m.onnx", made)
            options = ort.SessionOptions()
            options.log_severity_level = 3
            oracle = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.aivmm("run", path, "--input", "x=x.npy", "--output=out.npz")
            np.testing.assert_allclose(np.load(self.at / "out.npz")["y"], oracle.run(None, {"x": feeds["x"]})[0])
            words = ("run", path, "--input", "x=x.npy", "w=w.npy", "--output=out.npz")
            if allowed:
                self.aivmm(*words)
                np.testing.assert_allclose(np.load(self.at / "out.npz")["y"], oracle.run(None, feeds)[0])
            else:
                self.assertIn('no input "w"', self.aivmm(*words, expect=2).stderr)
                with self.assertRaises(Exception):
                    oracle.run(None, feeds)

    def test_inputs_that_do_not_fit_exit_2(self):
        np.save(self.at / "double.npy", np.zeros((2, 3)))
        np.save(self.at / "wide.npy", np.zeros((2, 4), np.float32))
        np.savez(self.at / "other.npz", q=np.zeros(3, np.float32))
        (self.at / "bad.npy").write_bytes(b"no array")
        (self.at / "odd.bin").write_bytes(b"12345")
        for word, hint in [("x=double.npy", "f64"), ("x=wide.npy", "[2,4]"), ("other.npz", "its inputs are x, y"),
                           ("q=wide.npy", "its inputs are x, y"), ("x=bad.npy", "NumPy"), ("x=odd.bin", "5 bytes")]:
            with self.subTest(word=word):
                self.assertIn(hint, self.aivmm("run", self.add, "--input", word, "--random", 1, expect=2).stderr)

    def test_types_that_numpy_cannot_name(self):
        kinds = {"b": (TensorProto.BFLOAT16, ml_dtypes.bfloat16), "s": (TensorProto.STRING, None)}
        path = self.save("kinds.onnx", model([helper.make_node("Identity", [n], ["o" + n]) for n in kinds],
                                             [value(n, t, [3]) for n, (t, _) in kinds.items()],
                                             [value("o" + n, t, [3]) for n, (t, _) in kinds.items()]))
        np.savez(self.at / "in.npz", b=np.array([1, 2.5, -3], ml_dtypes.bfloat16), s=np.array(["", "größer", "x"]))
        self.aivmm("run", path, "--input", "in.npz", "--output", "out.npz")
        out = np.load(self.at / "out.npz")
        np.testing.assert_array_equal(out["ob"].view(ml_dtypes.bfloat16).astype(np.float32), [1, 2.5, -3])
        np.testing.assert_array_equal(out["os"], ["", "größer", "x"])

    def test_pictures_become_what_is_said(self):
        pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.at / "p.png")
        path = self.save("id.onnx", model([helper.make_node("Identity", ["x"], ["y"])],
                                          [value("x", TensorProto.FLOAT, [1, 3, "H", "W"])],
                                          [value("y", TensorProto.FLOAT, [1, 3, "H", "W"])]))

        def run(*options):
            said = self.aivmm("run", path, "--input", "x=p.png", "--output", "y=y.npy", *options).stdout
            return np.load(self.at / "y.npy"), said

        y, said = run()
        self.assertIn("rgb, nchw", said)
        np.testing.assert_allclose(y[0], (pixels.transpose(2, 0, 1) - 127.5) / 127.5, atol=1e-6)
        y, said = run("--image-channels", "bgr", "--image-mean", "1,2,3", "--image-scale", "1/2")
        np.testing.assert_allclose(y[0], (pixels[..., ::-1].transpose(2, 0, 1) - np.array([1, 2, 3]).reshape(3, 1, 1)) / 2, atol=1e-5)
        y, said = run("--image-size", "8xW")
        self.assertEqual(y.shape, (1, 3, 8, 12))
        self.assertIn("resized to 8x12", said)
        for bad in (["--image-size", "8"], ["--image-scale", "1/0"], ["--image-mean", "1,2"]):
            self.aivmm("run", path, "--input", "x=p.png", *bad, expect=2)
        (self.at / "p.png").write_bytes(b"\x89PNG nothing")
        self.aivmm("run", path, "--input", "x=p.png", expect=2)

    def test_text_is_read_off_a_recogniser(self):
        path = self.save("id.onnx", model([helper.make_node("Identity", ["x"], ["y"])],
                                          [value("x", TensorProto.FLOAT, [1, "T", 5])],
                                          [value("y", TensorProto.FLOAT, [1, "T", 5])], character="a\nß\nc"))
        steps = [1, 1, 0, 1, 2, 4, 3, 0]  # classes: blank, a, ß, c, space
        np.save(self.at / "x.npy", np.eye(5, dtype=np.float32)[steps][None])
        self.assertEqual(self.run_json(path, "--input", "x=x.npy")["text"], "aaß c")
        self.assertNotIn("text", self.run_json(path, "--input", "x=x.npy", "--decode", "none"))
        self.assertIn("character", self.aivmm("run", self.add, "--random", 1, "--decode", "ctc", expect=1).stderr)

    def test_invalid_models_exit_3(self):
        (self.at / "noise.onnx").write_bytes(bytes(range(256)))
        unknown = model([helper.make_node("Bogus", ["x"], ["y"], domain="nowhere")],
                        [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])])
        unknown.opset_import.append(helper.make_opsetid("nowhere", 1))
        self.save("unknown.onnx", unknown)
        for name, hint in [("noise.onnx", ""), ("unknown.onnx", "Bogus")]:
            for command in (["run", name, "--random", 1], ["inspect", name]):
                with self.subTest(command=command):
                    self.assertIn(hint, self.aivmm(*command, expect=3).stderr)

    def test_failures_at_run_time_exit_1(self):
        grow = self.save("grow.onnx", model([helper.make_node("Expand", ["x", "shape"], ["y"])],
                                            [value("x", TensorProto.FLOAT, [1]), value("shape", TensorProto.INT64, [1])],
                                            [value("y", TensorProto.FLOAT, ["N"])]))
        np.save(self.at / "shape.npy", np.array([1 << 40]))
        error = self.aivmm("run", grow, "--random", 1, "--input", "shape=shape.npy", "--memory-limit", "1G", expect=1).stderr
        self.assertIn("Expand", error)
        self.aivmm("run", self.add, "--random", 1, "--output", "absent/out.npz", expect=1)

    # ------------------------------------------------------------ the others

    def test_inspect(self):
        j = json.loads(self.aivmm("inspect", self.add, "--shape", "x=5x3", "--json").stdout)
        self.assertEqual((j["nodes"], j["flops"], j["parameters"]), (2, 30, 0))
        self.assertEqual(j["operators"]["Add"]["count"], 1)
        self.assertIn("N = 1", self.aivmm("inspect", self.add).stdout)
        self.assertIn("Add", self.aivmm("inspect", self.add, "--text").stdout)

    def test_devices_of_another_machine(self):
        card = self.at / "machine/sys/bus/pci/devices/0000:3b:00.0"
        card.mkdir(parents=True)
        for name, text in {"vendor": "0x10de", "device": "0x2330", "class": "0x030200"}.items():
            (card / name).write_text(text + "\n")
        text = self.aivmm("devices", "--root", self.at / "machine").stdout
        self.assertIn("NVIDIA H100", text)
        self.assertIn("Install NVIDIA's driver", text)
        j = json.loads(self.aivmm("devices", "--root", self.at / "machine", "--json").stdout)
        self.assertEqual(j["hardware"][1]["id"], "pci:0000:3b:00.0")
        self.assertNotIn("memory_bytes", j["hardware"][1])
        self.aivmm("devices", "--root", self.at / "nowhere", expect=2)

    def test_an_input_of_any_rank(self):
        of_any_rank = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
        path = self.save("any.onnx", model([helper.make_node("Neg", ["x"], ["y"])], [of_any_rank], [value("y", TensorProto.FLOAT, None)]))
        for shape in (), (3,), (2, 3):
            np.save(self.at / "x.npy", np.ones(shape, np.float32))
            self.aivmm("run", path, "--input", "x=x.npy", "--output", "y.npz")
            self.assertEqual(np.load(self.at / "y.npz")["y"].shape, shape)

    def test_without_shared_memory(self):
        preload = {"LD_PRELOAD": str(BUILD / "fakes/no_shared_memory.so")}
        if "libomp" not in self.aivmm("devices").stdout:
            self.skipTest("only LLVM's OpenMP library needs it")
        self.assertIn("/dev/shm", self.aivmm("run", self.add, "--random", 1, expect=1, **preload).stderr)
        self.assertIn("/dev/shm", self.aivmm("devices", "--verbose", **preload).stdout)
        self.aivmm("run", self.add, "--random", 1, "--backend", "reference", **preload)

    def test_devices_and_ops(self):
        j = json.loads(self.aivmm("devices", "--json").stdout)
        self.assertIn("reference", [d["backend"] for d in j["devices"]])
        self.assertGreaterEqual(j["processor"]["usable"], 1)
        self.assertIn("reference", self.aivmm("devices").stdout)
        processor = j["hardware"][0]
        self.assertEqual(processor["resource"], "cpu:0")
        self.assertIn("reference:0", processor["used_by"])
        self.assertEqual({r["runtime"] for r in j["runtimes"]}, {"nvml", "cuda", "hip", "opencl", "level_zero", "openvino"})
        self.assertIn("Runtimes", self.aivmm("devices", "--verbose").stdout)
        self.assertIn("signature", self.aivmm("ops", "Conv").stdout)
        self.assertGreater(len(json.loads(self.aivmm("ops", "--json").stdout)), 100)

    def test_config_says_where_values_come_from(self):
        file = self.at / "settings"
        file.write_text("threads = 1\nbackend = reference\n")
        rows = json.loads(self.aivmm("config", "--json", AI_VMM_CONFIG=str(file), AI_VMM_BACKEND="auto").stdout)
        by = {row["name"]: row for row in rows}
        self.assertEqual((by["threads"]["value"], by["threads"]["source"]), ("1", "file"))
        self.assertEqual((by["backend"]["value"], by["backend"]["source"]), ("auto", "environment"))
        self.assertEqual(self.run_json(self.add, "--random", 1, AI_VMM_CONFIG=str(file))["backend"], "reference")
        self.assertIn("AI_VMM_THREADS", self.aivmm("run", self.add, "--random", 1, expect=2, AI_VMM_THREDS="2").stderr)
        file.write_text("thread = 1\n")
        self.assertIn("threads", self.aivmm("config", expect=2, AI_VMM_CONFIG=str(file)).stderr)

    def test_completions_parse(self):
        script = self.aivmm("completion", "bash").stdout
        test = 'COMP_WORDS=(aivmm run --rep); COMP_CWORD=2; _aivmm; echo "${COMPREPLY[*]}"'
        done = subprocess.run(["bash", "-c", f"{script}\n{test}"], capture_output=True, text=True)
        self.assertEqual(done.stdout.strip(), "--repeat", done.stderr)
        for shell in ("zsh", "fish"):
            self.assertIn("--memory-limit"[2:], self.aivmm("completion", shell).stdout)

    def test_what_crosses_a_link_is_counted(self):
        chips = self.at / "chips.txt"
        chips.write_text("chip = Card\npeak.f32 = 1 Tflop/s\nlink.bandwidth = 1 GB/s\nchip = Board\npeak.f32 = 1 Tflop/s\n")
        for device, way, other in [("sim:0", "copied_bytes", "shared_bytes"), ("sim:1", "shared_bytes", "copied_bytes")]:
            words = self.add, "--random", 1, "--backend", device, "--repeat", 3
            j = self.run_json(*words, AI_VMM_SIM_CHIPS=str(chips))
            runs = j["simulated"]["runs"]
            self.assertGreaterEqual(runs, 3)
            self.assertEqual(
                [(t["from"], t["to"], t["why"], t["times"], t[way], t[other]) for t in j["transfers"]],
                [("host", device, "input", 2 * runs, 24 * runs, 0), (device, "host", "output", 2 * runs, 24 * runs, 0)])
            self.assertIn("Transfers", self.aivmm("run", *words, AI_VMM_SIM_CHIPS=str(chips)).stdout)
        self.assertEqual(self.run_json(self.add, "--random", 1, "--backend", "cpu")["transfers"], [])

    def test_failover(self):
        chips = self.at / "chips.txt"
        chips.write_text("chip = Doomed\npeak.f32 = 1 Tflop/s\nfail = lost at 3 forever\nchip = Full\npeak.f32 = 1\n"
                         "fail = out_of_memory from 1\n")
        more = {"AI_VMM_SIM_CHIPS": str(chips)}
        j = self.run_json(self.add, "--random", 1, "--backend", "sim", "--repeat", 5, **more)
        self.assertEqual((j["backend"], j["simulated"]["runs"]), ("cpu", 2))
        self.assertEqual([(f["from"], f["to"], f["state"], f["requests"]) for f in j["failovers"]],
                         [("sim", "cpu", "lost", 1)])
        j = self.run_json(self.add, "--random", 1, "--backend", "sim:1", "--standby", "--failover", "sim:0", **more)
        self.assertEqual(j["failovers"][0]["to"], "sim:0")
        done = self.aivmm("run", self.add, "--random", 1, "--backend", "sim:1", "--failover", "none", expect=1, **more)
        self.assertIn("No other device is left", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
