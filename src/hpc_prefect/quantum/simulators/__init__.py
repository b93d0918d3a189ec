"""Simulators of quantum computers."""
