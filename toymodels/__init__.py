"""A laboratory for computation in superposition.

    features → first layer → activations → readoff → errors

Everything below combines with everything else; `evaluate` measures it all with one ruler.
"""

from toymodels.errors import InputError
from toymodels.evaluation import Evaluation, evaluate
from toymodels.features import Inputs, SparseFeatures
from toymodels.gates import Gate
from toymodels.layers import LAYERS, FirstLayer, IdentityLayer, gaussian, kaiming, make_layer
from toymodels.losses import LpLoss, case_weights
from toymodels.network import Network
from toymodels.readoffs.analytic import analytic
from toymodels.readoffs.least_squares import balanced, least_squares
from toymodels.readoffs.linear import LinearReadoff
from toymodels.readoffs.minimax import Minimax, minimax
from toymodels.tasks import PairTask, Task
from toymodels.training import Trainer, TrainingSettings, train

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
