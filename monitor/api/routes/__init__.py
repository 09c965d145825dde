"""The routes of the collector, assembled once in a process: applications share them, and what they check."""

from fastapi import APIRouter

from lossguard.vocabulary.protocol import API
from monitor import problems
from monitor.api.routes import (
    audit,
    collector,
    export,
    hardware,
    health,
    mlflow,
    notes,
    orders,
    overview,
    policies,
    preflights,
    runs,
    scorecard,
    series,
)

router = APIRouter(responses=problems.RESPONSES)
for each in (
    collector,
    overview,
    runs,
    notes,
    series,
    hardware,
    export,
    orders,
    preflights,
    policies,
    audit,
    scorecard,
):
    router.include_router(each.router, prefix=API)
router.include_router(mlflow.router)
router.include_router(health.router)
