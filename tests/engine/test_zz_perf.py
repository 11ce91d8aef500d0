import time, tracemalloc, pytest
from tests.engine.bodies import *
from tests.engine.conftest import Lab, node
from tests.engine.test_many_iterations import Meter
import sys
@pytest.mark.parametrize("count",[1000,10000])
@pytest.mark.parametrize("trace",[False,True])
def test_it(lab, count, trace):
    meter = Meter(count//10, count-1); lab.kinds["meter"]=meter
    lab.start(threads=1)
    if trace: tracemalloc.start()
    else: meter.at=()
    began=time.monotonic()
    run = lab.queue(node("trigger"), loop(iterations=count, maxIterations=20000), *inside("loop", node("meter","m")), edges="trigger>loop")
    lab.until(run,"completed")
    print("COUNT",count,trace,round(time.monotonic()-began,2),meter.sizes, file=sys.stderr)
    if trace: tracemalloc.stop()
@pytest.mark.parametrize("trace",[True])
def test_nested(lab, trace):
    count=2000
    meter = Meter(count//10, count-1); lab.kinds["meter"]=meter
    lab.start(threads=1)
    tracemalloc.start()
    began=time.monotonic()
    run = lab.queue(node("trigger"), loop("outer",iterations=count, maxIterations=20000), *inside("outer", loop("inner",iterations=1)), *inside("inner",node("meter","m")), edges="trigger>outer")
    lab.until(run,"completed")
    print("NESTED",count,trace,round(time.monotonic()-began,2),meter.sizes, file=sys.stderr)
    tracemalloc.stop()
