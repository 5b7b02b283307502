"""The playground's numbers are zolib's: its paths, in a browser, against the same learners in Python."""

import math

import numpy as np
import pytest
import torch

import zolib as zo
from zolib.noise import stream
from zolib.noise.seeds import own

SCRIPT = "book/_static/playground.js"
C, S, A, W = math.cos(math.pi / 6), math.sin(math.pi / 6), 0.3, 2 * math.pi / 0.8
LANDSCAPES = {
    "bowl": lambda p: 0.5 * ((C * p[0] + S * p[1]) ** 2 + 10 * (C * p[1] - S * p[0]) ** 2),
    "valley": lambda p: (1 - p[0]) ** 2 + 10 * (p[1] - p[0] ** 2) ** 2,
    "wells": lambda p: p[0] ** 4 / 4 - p[0] ** 2 / 2 + p[1] ** 2 / 2,
    "ripples": lambda p: (p[0] ** 2 + p[1] ** 2) / 2 + A * (2 - torch.cos(W * p[0]) - torch.cos(W * p[1])),
}
SETTINGS = {  # step size, probe size, steps; steps small enough for every landscape
    "coordinates": (0.01, 0.1, 40), "spsa": (0.01, 0.1, 60), "gaussian": (0.01, 0.1, 60), "evolution": (0.03, 0.3, 30),
    "snes": (1.0, 0.4, 40), "oua": (0.5, 0.3, 150), "gradient": (0.01, None, 80), "momentum": (0.002, None, 80),
    "newton": (0.5, None, 12), "chebyshev": (0.5, None, 8),
}  # fmt: skip
SEED, START = 5, [-0.9, 0.7]


@pytest.fixture(scope="module")
def browser_page(chromium, request):
    page = chromium.new_page()
    page.add_script_tag(path=str(request.config.rootpath / SCRIPT))
    yield page
    page.close()


class Told:
    """The objective as the playground tells it: values, or slopes, with noise from the same stream."""

    def __init__(self, f, noise):
        self.f, self.noise, self.seed, self.step, self.asked = f, noise, own(SEED, 0x6E6F), 0, 0

    def error(self):
        if not self.noise:
            return 0.0
        n = stream.draw(stream.NORMAL, self.seed, self.step, range(self.asked, self.asked + 1), [(0, 1)])[0].item()
        self.asked += 1
        return self.noise * n

    def __call__(self, p):
        return self.f(p) + self.error()

    def slope(self, p):
        g = torch.func.grad(self.f)(p)
        return g + torch.tensor([self.error(), self.error()], dtype=torch.float64)


def path(method, f, noise, rate, sigma, steps):
    told, p = Told(f, noise), torch.tensor(START, dtype=torch.float64)
    hessian = torch.func.hessian(f)
    points = [p]
    if method == "oua":
        theta = p.clone().requires_grad_()
        oua = zo.rules.OUA([theta], lr=rate, sigma=sigma, dt=0.05, seed=SEED)
    if method == "snes":
        search = zo.Minimizer(START, "snes", sigma=sigma, seed=SEED)
    if method == "momentum":
        moved = p.clone().requires_grad_()
        sgd = torch.optim.SGD([moved], lr=rate, momentum=0.9)
    kinds = {
        "coordinates": (zo.Coordinate(), zo.TwoPoint(), 2), "spsa": (zo.Rademacher(), zo.TwoPoint(), 1),
        "gaussian": (zo.Gaussian(), zo.TwoPoint(), 2), "evolution": (zo.Gaussian(), zo.Ranks(), 8),
    }  # fmt: skip
    for t in range(steps):
        told.step, told.asked = t, 0
        if method in kinds:
            probe, feedback, samples = kinds[method]
            g = zo.grad(told, probe=probe, feedback=feedback, samples=samples, sigma=sigma, seed=SEED)(p, step=t)
            p = p - rate * g
        elif method == "oua":
            oua.step(-told(theta.detach()))
            p = oua.mean(theta).clone()
        elif method == "snes":
            x = torch.tensor(search.ask())
            search.tell([float(told(v)) for v in x])
            p = torch.tensor(search.mean)
        elif method == "momentum":
            moved.grad = told.slope(moved.detach())
            sgd.step()
            p = moved.detach().clone()
        else:
            step = told.slope(p)
            if method in ("newton", "chebyshev"):
                h = hessian(p)
                step = torch.linalg.solve(h, step)
                if method == "chebyshev":
                    third = torch.func.jvp(lambda q: hessian(q) @ step, (p,), (step,))[1]  # noqa: B023
                    step = step + 0.5 * torch.linalg.solve(h, third)
            p = p - rate * step
        points.append(p)
    return torch.stack(points).numpy()


@pytest.mark.parametrize("landscape", LANDSCAPES)
@pytest.mark.parametrize(
    ("method", "noise"),
    # no noise on coordinates: the library visits them in random order, the page in order
    [(method, noise) for method in SETTINGS for noise in (0.0, 0.02) if not (method == "coordinates" and noise)],
)
def test_a_path_in_the_browser_is_the_path_in_python(browser_page, method, landscape, noise):
    rate, sigma, steps = SETTINGS[method]
    given = {
        "landscape": landscape, "method": method, "start": START, "rate": rate, "noise": noise, "budget": 10_000,
        "seed": SEED, **({"sigma": sigma} if sigma else {}),
    }  # fmt: skip
    found = browser_page.evaluate("o => zolibPlayground.run(o)", given)
    expected = path(method, LANDSCAPES[landscape], noise, rate, sigma, steps)
    got = np.array(found["path"])[: len(expected)]
    assert len(got) == len(expected), "the page stopped early"
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_the_noise_is_the_librarys_bit_for_bit(browser_page):
    for seed, step in ((0, 0), (1, 7), (2**32 - 1, 123_456)):
        ours = stream.draw(stream.NORMAL, seed, step, range(2000), [(0, 2)])[0].numpy()
        words = f"[{seed}, 0], {step}"
        theirs = browser_page.evaluate(f"Array.from({{length: 2000}}, (_, k) => zolibPlayground.normals({words}, k))")
        assert np.array_equal(ours, np.array(theirs, dtype=np.float32))
        signs = browser_page.evaluate(f"Array.from({{length: 200}}, (_, k) => zolibPlayground.signs({words}, k))")
        assert np.array_equal(stream.draw(stream.SIGN, seed, step, range(200), [(0, 2)])[0].numpy(), np.array(signs))


def test_derivatives_of_the_landscapes(browser_page):
    for name, f in LANDSCAPES.items():
        for p in ([0.3, -0.8], [-1.1, 1.7]):
            point, n = torch.tensor(p, dtype=torch.float64), torch.tensor([0.4, -1.3], dtype=torch.float64)
            hessian = torch.func.hessian(f)
            third = torch.func.jvp(lambda q: hessian(q) @ n, (point,), (n,))[1]  # noqa: B023
            h = hessian(point)
            expected = [f(point), *torch.func.grad(f)(point), h[0, 0], h[0, 1], h[1, 1], *third]
            script = "([l, p, n]) => [l.f(p), ...l.g(p), ...l.h(p), ...l.t(p, n)]"
            call = f"([name, p, n]) => ({script})([zolibPlayground.landscapes[name], p, n])"
            found = browser_page.evaluate(call, [name, p, n.tolist()])
            np.testing.assert_allclose(found, [float(v) for v in expected], rtol=1e-10, atol=1e-10)
