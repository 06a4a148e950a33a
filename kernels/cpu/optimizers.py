"""Optimisers in Numba, over flat arrays: one pass updates parameters and state in place.

gradients, parameters and every state array: (size,). step counts from 1.
"""

from math import sqrt

from .jit import kernel


@kernel
def sgd(gradients, learning_rate, momentum, nesterov, parameters, velocity):
    """v = momentum v + g; p -= learning_rate v, or learning_rate (g + momentum v) after Nesterov.

    velocity is empty where momentum is zero.
    """
    rate, mu = parameters.dtype.type(learning_rate), parameters.dtype.type(momentum)
    if velocity.size == 0:
        for i in range(parameters.size):
            parameters[i] -= rate * gradients[i]
    elif nesterov:
        for i in range(parameters.size):
            velocity[i] = mu * velocity[i] + gradients[i]
            parameters[i] -= rate * (gradients[i] + mu * velocity[i])
    else:
        for i in range(parameters.size):
            velocity[i] = mu * velocity[i] + gradients[i]
            parameters[i] -= rate * velocity[i]


@kernel
def adam(gradients, learning_rate, beta1, beta2, eps, step, parameters, m, v):
    """m, v: means of g and g**2; p -= learning_rate m^ / (sqrt(v^) + eps) (Kingma & Ba 2015)."""
    adamw(gradients, learning_rate, beta1, beta2, eps, 0.0, step, parameters, m, v)


@kernel
def adamw(gradients, learning_rate, beta1, beta2, eps, weight_decay, step, parameters, m, v):
    """p -= learning_rate weight_decay p, then a step of Adam (Loshchilov & Hutter 2019)."""
    real = parameters.dtype.type
    shrink = real(1 - learning_rate * weight_decay)
    b1, b2, epsilon = real(beta1), real(beta2), real(eps)
    new1, new2 = real(1 - beta1), real(1 - beta2)
    m_scale, v_scale = real(learning_rate / (1 - beta1**step)), real(1 / (1 - beta2**step))
    for i in range(parameters.size):
        m[i] = b1 * m[i] + new1 * gradients[i]
        v[i] = b2 * v[i] + new2 * gradients[i] * gradients[i]
        update = m_scale * m[i] / (sqrt(v_scale * v[i]) + epsilon)
        parameters[i] = shrink * parameters[i] - update


@kernel
def rmsprop(gradients, learning_rate, alpha, eps, parameters, square):
    """s = alpha s + (1 - alpha) g**2; p -= learning_rate g / (sqrt(s) + eps) (Hinton 2012)."""
    real = parameters.dtype.type
    rate, old, new, epsilon = real(learning_rate), real(alpha), real(1 - alpha), real(eps)
    for i in range(parameters.size):
        square[i] = old * square[i] + new * gradients[i] * gradients[i]
        parameters[i] -= rate * gradients[i] / (sqrt(square[i]) + epsilon)
