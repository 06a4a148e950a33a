"""Optimisers in NumPy, over flat arrays: parameters and state are updated in place.

gradients, parameters and every state array: (size,). step counts from 1.
"""

import numpy as np


def sgd(gradients, learning_rate, momentum, nesterov, parameters, velocity):
    """v = momentum v + g; p -= learning_rate v, or learning_rate (g + momentum v) after Nesterov.

    velocity is empty where momentum is zero.
    """
    if velocity.size == 0:
        parameters -= learning_rate * gradients
        return
    velocity *= momentum
    velocity += gradients
    direction = gradients + momentum * velocity if nesterov else velocity
    parameters -= learning_rate * direction


def adam(gradients, learning_rate, beta1, beta2, eps, step, parameters, m, v):
    """m, v: means of g and g**2; p -= learning_rate m^ / (sqrt(v^) + eps) (Kingma & Ba 2015)."""
    m *= beta1
    m += (1 - beta1) * gradients
    v *= beta2
    v += (1 - beta2) * gradients * gradients
    m_scale = learning_rate / (1 - beta1**step)
    v_scale = 1 / (1 - beta2**step)
    parameters -= m_scale * m / (np.sqrt(v_scale * v) + eps)


def adamw(gradients, learning_rate, beta1, beta2, eps, weight_decay, step, parameters, m, v):
    """p -= learning_rate weight_decay p, then a step of Adam (Loshchilov & Hutter 2019)."""
    parameters *= 1 - learning_rate * weight_decay
    adam(gradients, learning_rate, beta1, beta2, eps, step, parameters, m, v)


def rmsprop(gradients, learning_rate, alpha, eps, parameters, square):
    """s = alpha s + (1 - alpha) g**2; p -= learning_rate g / (sqrt(s) + eps) (Hinton 2012)."""
    square *= alpha
    square += (1 - alpha) * gradients * gradients
    parameters -= learning_rate * gradients / (np.sqrt(square) + eps)
