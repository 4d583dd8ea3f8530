"""A laboratory for computation in superposition.

    features → first layer → activations → readoff → errors

Everything below combines with everything else; `evaluate` measures it all with one ruler.
"""

from toymodels.core.evaluation import Evaluation, evaluate
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.layers import LAYERS, FirstLayer, IdentityLayer, gaussian, kaiming, make_layer
from toymodels.core.losses import LpLoss, case_weights
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.core.training import Trainer, TrainingSettings, train
from toymodels.errors import InputError
from toymodels.fast.least_squares import balanced, least_squares
from toymodels.fast.minimax import Minimax, minimax
from toymodels.readoffs.analytic import analytic
from toymodels.theory.gates import Gate

__all__ = [
    "LAYERS",
    "Evaluation",
    "FirstLayer",
    "Gate",
    "IdentityLayer",
    "InputError",
    "Inputs",
    "LinearReadoff",
    "LpLoss",
    "Minimax",
    "Network",
    "PairTask",
    "SparseFeatures",
    "Task",
    "Trainer",
    "TrainingSettings",
    "analytic",
    "balanced",
    "case_weights",
    "evaluate",
    "gaussian",
    "kaiming",
    "least_squares",
    "make_layer",
    "minimax",
    "train",
]
