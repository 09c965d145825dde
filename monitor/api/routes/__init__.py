"""The routes of the collector, assembled once in a process: applications share them, and what they check."""

from fastapi import APIRouter

from lossguard.vocabulary.protocol import API
from monitor import problems
from monitor.api.routes import collector, measurements, mlflow, orders, runs

router = APIRouter(responses=problems.RESPONSES)
routers = (collector.router, runs.router, runs.of_notes, measurements.router, orders.router, orders.of_policies)
for each in routers:
    router.include_router(each, prefix=API)
router.include_router(mlflow.router)
router.include_router(collector.health)
