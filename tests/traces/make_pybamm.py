"""Recorded traces of cells that quarkctl's own plant model knows nothing of: ``python -m tests.traces.make_pybamm``.

PyBaMM's single-particle model with electrolyte, parameters of Chen et al. 2020 (an LG M50 of 5 Ah) and of Marquis et al.
2019 (a Kokam pouch cell), lumped heat. What the algorithms must find is computed here from the model's own, noise-free
solution; the traces hold what an instrument would have seen: rounded to 1 mV and 1 mA, with noise.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
NOISE_MV = 0.7


def cell(name: str) -> tuple[Any, Any, float]:
    import pybamm

    values = pybamm.ParameterValues(name)
    options = {"thermal": "lumped"}
    return pybamm.lithium_ion.SPMe(options), values, float(values["Nominal cell capacity [A.h]"])


def solve(name: str, soc: float, steps: list[tuple[float, float]], every_s: float) -> dict[str, Any]:
    """``steps``: (amperes, seconds). Columns of the solution."""
    import pybamm

    model, values, _ = cell(name)
    edges = np.cumsum([0.0, *(s for _, s in steps)])
    amps = [a for a, _ in steps]
    times, currents = [0.0], [amps[0]]
    for k, a in enumerate(amps):
        times += [edges[k] + 1e-3 * (k > 0), edges[k + 1]]
        currents += [a, a]
    keep = np.concatenate(([True], np.diff(times) > 0))
    t, i = np.array(times)[keep], np.array(currents)[keep]
    values["Current function [A]"] = pybamm.Interpolant(t, i, pybamm.t)
    sim = pybamm.Simulation(model, parameter_values=values, solver=pybamm.IDAKLUSolver(rtol=1e-7, atol=1e-8))
    at = np.arange(0.0, edges[-1] + 1e-9, every_s)
    got = sim.solve(t_eval=np.unique(np.concatenate((t, at))), t_interp=at, initial_soc=soc)
    names = {"mv": "Terminal voltage [V]", "ma": "Current [A]", "temp": "Volume-averaged cell temperature [C]",
             "watts": "Total heating [W]", "ah": "Discharge capacity [A.h]"}  # fmt: skip
    out = {k: np.asarray(got[v](at), float) for k, v in names.items()}
    return {
        "t": at,
        "mv": 1000 * out["mv"],
        "ma": 1000 * out["ma"],
        "temp": out["temp"],
        "watts": out["watts"],
        "ah": out["ah"],
    }


def seen(seed: int, mv: Any, ma: Any) -> tuple[Any, Any]:
    r = np.random.default_rng(seed)
    return np.round(mv + r.normal(0, NOISE_MV, len(mv))), np.round(ma + r.normal(0, 0.3, len(ma)))


def save(name: str, columns: dict[str, Any], expected: dict[str, Any]) -> None:
    rows = np.column_stack(list(columns.values()))
    text = ",".join(columns) + "\n" + "\n".join(",".join(f"{v:.10g}" for v in row) for row in rows) + "\n"
    (FOLDER / f"{name}.csv").write_text(text)
    (FOLDER / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(name, len(rows), expected)


def pulses(name: str, parameters: str, soc: float) -> None:
    """0.2 C for 10 s, 1 C for 1 s, five times; truth by the model's own voltages, to both definitions."""
    _, _, ah = cell(parameters)
    steps = [(0.0, 5.0), *([(0.2 * ah, 11.0), (1.0 * ah, 1.2)] * 5), (0.2 * ah, 3.0)]
    fine = solve(parameters, soc, steps, 0.01)
    active, passive = [], []
    for k in range(5):
        t = 5.0 + 11.0 * (k + 1) + 1.2 * k
        v1, v2 = np.interp([t - 0.02, t + 1.1], fine["t"], fine["mv"])
        active.append((v1 - v2) / (0.8 * ah))
        va, vb = np.interp([t, t + 0.1], fine["t"], fine["mv"])
        passive.append((va - vb) / (0.8 * ah))
    coarse = slice(None, None, 10)
    mv, ma = seen(1, fine["mv"][coarse], fine["ma"][coarse])
    save(name, {"time_s": fine["t"][coarse], "ma": ma, "mv": mv},
         {"capacity_mah": 1000 * ah, "active_mohm": float(np.mean(active)),
          "passive_mohm": float(np.mean(passive))})  # fmt: skip


def rest(name: str, parameters: str) -> None:
    """Used at C/2 for half an hour, rested for an hour, twice; open-circuit table from the model at rest."""
    _, _, ah = cell(parameters)
    table = []
    for k in range(11):
        one = solve(parameters, max(k / 10, 0.001), [(1e-6, 1800.0)], 1800.0)
        table.append(float(one["mv"][-1]))
    run = solve(parameters, 0.85, [(0.5 * ah, 1800.0), (0.0, 3600.0), (0.5 * ah, 1800.0), (0.0, 3600.0)], 1.0)
    keep = slice(None, None, 5)
    mv, ma = seen(2, run["mv"][keep], run["ma"][keep])
    q = run["ah"]
    # the scale of the table: the charge between its ends
    full = float(solve(parameters, 1.0, [(ah / 20, 3600.0)], 3600.0)["ah"][-1])
    save(name, {"time_s": run["t"][keep], "ma": ma, "mv": mv},
         {"capacity_mah": 1000 * ah, "ocv_mv": table, "soc_first": 0.85 - capacity_share(parameters, q[5300]),
          "soc_last": 0.85 - capacity_share(parameters, q[-1]), "full_check": full})  # fmt: skip


def capacity_share(parameters: str, ah: float) -> float:
    """Share of the charge between 0 and 100 % that ``ah`` are, by the model's own electrode limits."""
    import pybamm

    values = pybamm.ParameterValues(parameters)
    x0, x100, *_ = pybamm.lithium_ion.get_min_max_stoichiometries(values)
    q = pybamm.LithiumIonParameters()
    return float(ah / (values.evaluate(q.n.Q_init) * (x100 - x0)))


def heat(name: str, parameters: str) -> None:
    """1 C from rest: one lumped mass, so the thermal resistance and time constant are known from its parameters."""
    import pybamm

    _, _, ah = cell(parameters)
    run = solve(parameters, 0.95, [(0.0, 300.0), (1.0 * ah, 2700.0)], 1.0)
    keep = slice(None, None, 5)
    values = pybamm.ParameterValues(parameters)
    p = pybamm.LithiumIonParameters()
    area = float(values["Cell cooling surface area [m2]"])
    h = float(values["Total heat transfer coefficient [W.m-2.K-1]"])
    capacity = float(values.evaluate(p.rho_c_p_eff(pybamm.Scalar(298.15)))) * float(values["Cell volume [m3]"])
    r = np.random.default_rng(3)
    temp = np.round((run["temp"][keep] + r.normal(0, 0.05, len(run["t"][keep]))) * 10) / 10
    save(name, {"time_s": run["t"][keep], "temp_c": temp, "watts": run["watts"][keep]},
         {"k_per_w": 1 / (h * area), "tau_s": capacity / (h * area)})  # fmt: skip


TRACES = {
    "pybamm_pulses_chen": lambda: pulses("pybamm_pulses_chen", "Chen2020", 0.6),
    "pybamm_pulses_marquis": lambda: pulses("pybamm_pulses_marquis", "Marquis2019", 0.5),
    "pybamm_rest_chen": lambda: rest("pybamm_rest_chen", "Chen2020"),
    "pybamm_heat_chen": lambda: heat("pybamm_heat_chen", "Chen2020"),
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or TRACES:
        TRACES[wanted]()
