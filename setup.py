"""Lets pip build the project; everything is declared in setup.cfg."""

from __future__ import annotations

from setuptools import setup

setup()
