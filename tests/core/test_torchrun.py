"""Scripts under torchrun: the one in the documentation, and one that loses a process."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from processes import LOOPBACK

import zolib as zo
from zolib import parallel

LOSES_ONE = """
import os, signal, sys
import torch, torch.distributed as dist
import zolib as zo

torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
net, x = torch.nn.Linear(4, 1), torch.randn(20, 8, 4)
opt = zo.MeZO(net, lr=0.05, samples=2, momentum=0.5, process_group=dist.group.WORLD, journal=sys.argv[1])
print(f"rank {dist.get_rank()} starts at {opt.steps}", flush=True)

def closure():
    first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first_life and opt.steps == 10 and dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return net(x[opt.steps]).square().mean()

while opt.steps < 20:
    opt.step(closure)
print("ends", [p.tolist() for p in net.parameters()], flush=True)
dist.destroy_process_group()
"""


def torchrun(script, processes, *arguments, restarts=0):
    """What the processes printed, one after another; into one pipe they would print into each other's lines."""
    logs = script.parent / "logs"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["--max-restarts", str(restarts), "--monitor-interval", "0.1"]
    command += ["--log-dir", str(logs), "--redirects", "1", str(script), *map(str, arguments)]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "PYTHONPATH": str(Path(zo.__file__).parents[1]),
    }
    done = subprocess.run(command, env=env, cwd=script.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-8000:]
    return "".join(log.read_text() for log in sorted(logs.rglob("stdout.log")))


def test_the_script_of_the_documentation_trains(tmp_path):
    script = tmp_path / "script.py"
    _, code = parallel.__doc__.split(".. code-block:: python\n")
    script.write_text(textwrap.dedent(code[: code.index("\nA failure in one")]))
    said = re.findall(r"rank (\d): ([\d.]+) to ([\d.]+)", torchrun(script, 2))
    assert sorted(rank for rank, *_ in said) == ["0", "1"]
    (_, *one), (_, *other) = said
    assert one == other and float(one[1]) < 0.5 * float(one[0])
    assert (tmp_path / "run.journal").exists()


@pytest.mark.slow
def test_torchrun_starts_a_lost_process_again_from_the_journal(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(LOSES_ONE)
    said = torchrun(script, 2, tmp_path / "run.journal", restarts=1)
    assert sorted(re.findall(r"starts at (\d+)", said)) == ["0", "0", "10", "10"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = torch.nn.Linear(4, 1), torch.randn(20, 8, 4)
    opt = zo.MeZO(net, lr=0.05, samples=2, momentum=0.5)
    for batch in x:
        opt.step(lambda batch=batch: net(batch).square().mean())
    assert re.findall(r"ends .*", said) == [f"ends {[p.tolist() for p in net.parameters()]}"] * 2
