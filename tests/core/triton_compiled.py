"""What a GPU would be given: compiles the kernels for an H100 as their callers launch them, and prints their PTX.

Run by test_triton.py in a process of its own.  No GPU is needed: Triton is told of one, and stops before the launch.
Prints a list of (kernel, dtype, PTX), as json.
"""

import json

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from zolib.noise import fused, gpu, gpu_linear, stream


class H100:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)


compiled = []
launch = JITFunction.run


def compile_only(self, *args, **kwargs):
    kernel = launch(self, *args, **(kwargs | {"warmup": True}))
    compiled.append((self.__name__, str(args[0].dtype), kernel.asm["ptx"]))


driver.set_active(H100())
JITFunction.run = compile_only
top = 2**32 - 1
place = {"seed": 2**64 - 1, "step": top, "sample": 0, "parameter": 1}
gpu.draw(stream.NORMAL, 2**64 - 1, 5, range(3), [(top, 1000)], "cpu")
gpu.perturbed(torch.ones(1000, dtype=torch.float16), stream.NORMAL, 0, top, 1, 0, 1e-3)
gpu.update_(torch.ones(1000), stream.NORMAL, [fused.Term(1, 2, 3, 0.5)], 4, 1.0)
gpu.update_(torch.ones(1000, dtype=torch.bfloat16), stream.SIGN, [fused.Term(1, 2, 3, 0.5)], 4, 0.9)
for dtype in (torch.bfloat16, torch.float32):
    x, w, b = (torch.ones(shape, dtype=dtype) for shape in ((100, 256), (64, 256), (64,)))
    gpu_linear.pair(x, x, w, b, 0.1, bias_parameter=top, **place)
    gpu_linear.rank_one(x[None], w, torch.ones(1, 64), torch.ones(1, 256), 0.1, b)
print(json.dumps(compiled))
