"""scikit-learn models exported by skl2onnx: a forest, gradient boosting, a support vector machine, scaled regression, and a
pipeline over columns of numbers and words. Prints what the models declare, labels and probabilities."""

import json

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC


def run(model, feed):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(None, feed)
    if isinstance(probabilities, np.ndarray):
        probabilities = probabilities.tolist()
    else:
        probabilities = [{str(k): float(v) for k, v in row.items()} for row in probabilities]  # ZipMap
    return {"inputs": [(i.name, i.type, i.shape) for i in session.get_inputs()],
            "outputs": [(o.name, o.type) for o in session.get_outputs()], "labels": labels.tolist(),
            "probabilities": probabilities}


X, y = load_iris(return_X_y=True)
X = X.astype(np.float32)
names = np.array(["setosa", "versicolor", "virginica"], object)[y]
results = {}
for classifier, target, options in (
        (RandomForestClassifier(20, random_state=0), names, None),
        (GradientBoostingClassifier(n_estimators=20, random_state=0), y, {"zipmap": False}),
        (SVC(probability=True, random_state=0), y, {"zipmap": False}),
        (make_pipeline(StandardScaler(), LogisticRegression()), names, None)):
    classifier.fit(X, target)
    options = {id(classifier): options} if options else None
    results[type(classifier).__name__] = run(to_onnx(classifier, X[:1], options=options), {"X": X})

words = np.array([["red" if v > 3 else "green"] for v in X[:, 1]], object)
mixed = make_pipeline(ColumnTransformer([("n", StandardScaler(), [0, 1, 2, 3]), ("w", OneHotEncoder(), [4])]),
                      LogisticRegression())
mixed.fit(np.concatenate([X.astype(object), words], axis=1), y)
types = [("numbers", FloatTensorType([None, 4])), ("words", StringTensorType([None, 1]))]
results["columns"] = run(to_onnx(mixed, initial_types=types, options={id(mixed): {"zipmap": False}}),
                         {"numbers": X, "words": words})

print(json.dumps(results))
