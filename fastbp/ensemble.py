"""Many small networks at once: independent copies, each trained by one thread at a time."""

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from . import initializers
from .checks import Array, check_count
from .layers import Dense
from .network import Sequential
from .parallel import get_num_threads
from .training import History, check_callbacks


class Ensemble:
    """Independent copies of a network, trained side by side, one per processor at a time.

    Parameters
    ----------
    net : Sequential
        What is copied. It stays as it is.
    members : int
    seed : int, optional
        Draws new weights for every member, with the default initialiser of each layer, zero biases.
        None: all begin with the weights of `net`.

    Attributes
    ----------
    nets : list of Sequential

    Examples
    --------
    >>> import numpy as np, fastbp
    >>> net = fastbp.Sequential(fastbp.Dense(1, 8, activation="tanh"), fastbp.Dense(8, 1))
    >>> ensemble = fastbp.Ensemble(net, 4, seed=0)
    >>> x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(32, 1)
    >>> histories = ensemble.fit(x, x**2, loss="squared_error", epochs=2)
    >>> len(histories), ensemble.predict(x).shape
    (4, (4, 32, 1))
    """

    def __init__(self, net: Sequential, members: int, seed: int | None = None) -> None:
        self.nets = [copy.deepcopy(net) for _ in range(check_count("members", members))]
        if seed is None:
            return
        for one, own in zip(self.nets, np.random.SeedSequence(seed).spawn(members), strict=True):
            rng = np.random.default_rng(own)
            for layer in one.layers:
                if isinstance(layer, Dense):
                    draw = initializers.resolve(None, layer.activation)
                    layer.w[...] = draw(rng, layer.in_features, layer.out_features)
                    layer.b[...] = 0

    def fit(
        self, x: Array, t: Array, *, each: Sequence[dict[str, Any]] | None = None, **options: Any
    ) -> list[History]:
        """`Sequential.fit` of every member, side by side.

        Parameters
        ----------
        x, t
            The data of all members, unless `each` has others.
        each : sequence of dict, optional
            For every member what differs for it: x, t, or any option of `fit`. Give each member an
            optimizer of its own: a name, or an instance here.
        **options
            Of `Sequential.fit`, for all. Without a `seed`, member i shuffles with seed i.

        Returns
        -------
        list of History
            After Ctrl-C those of members that were not done say `stopped == "interrupted"`; each
            keeps the epochs that it has finished.

        Raises
        ------
        ValueError
            If `each` has not one entry per member.
        Exception
            What the first member raised that failed; members that had not begun stay as they were.

        Examples
        --------
        Two members with learning rates of their own:

        >>> import numpy as np, fastbp
        >>> ensemble = fastbp.Ensemble(fastbp.Sequential(fastbp.Dense(1, 1)), 2)
        >>> x = np.ones((4, 1), np.float32)
        >>> rates = [{"optimizer": fastbp.SGD(rate)} for rate in (0.1, 0.01)]
        >>> histories = ensemble.fit(x, x, loss="squared_error", epochs=3, each=rates)
        >>> [history.epochs for history in histories]
        [3, 3]
        """
        own = [{} for _ in self.nets] if each is None else list(each)
        if len(own) != len(self.nets):
            raise ValueError(
                f"each: expected one dict per member, {len(self.nets)}, got {len(own)}"
            )
        optimizer = options.get("optimizer")
        if optimizer is not None and not isinstance(optimizer, str):
            options["optimizer"] = None  # an instance keeps the state of one network
            own = [{"optimizer": copy.deepcopy(optimizer)} | mine for mine in own]

        interrupted, busy = threading.Event(), [threading.Lock() for _ in self.nets]
        histories = [History(stopped="interrupted") for _ in self.nets]

        def train(i: int) -> None:
            with busy[i]:
                if interrupted.is_set():
                    return
                arguments: dict[str, Any] = {"x": x, "t": t, "seed": i} | options | own[i]
                callbacks = check_callbacks(arguments.get("callbacks", ()))
                arguments["callbacks"] = [*callbacks, lambda net, history: interrupted.is_set()]
                histories[i] = self.nets[i].fit(**arguments)
                if interrupted.is_set() and histories[i].stopped == "callback":
                    histories[i].stopped = "interrupted"

        with ThreadPoolExecutor(get_num_threads()) as pool:
            try:
                for future in [pool.submit(train, i) for i in range(len(self.nets))]:
                    # In turns: a signal that comes just before a wait does not end it.
                    while wait([future], timeout=0.1).not_done:
                        pass
                    future.result()
            except KeyboardInterrupt:
                interrupted.set()
                for member in busy:  # the pool may not know of a thread that it was starting
                    with member:
                        pass
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return histories

    def predict(self, x: Array) -> Array:
        """The outputs (members, n, out_features) of all members for x (n, in_features).

        Examples
        --------
        >>> import numpy as np, fastbp
        >>> ensemble = fastbp.Ensemble(fastbp.Sequential(fastbp.Dense(2, 1)), 3, seed=0)
        >>> y = ensemble.predict(np.ones((5, 2), np.float32))
        >>> y.shape, y.mean(axis=0).shape
        ((3, 5, 1), (5, 1))
        """
        with ThreadPoolExecutor(get_num_threads()) as pool:
            return np.stack(list(pool.map(lambda net: net.predict(x), self.nets)))
