r"""The equations of the package's docstrings, as the web site draws them.

A docstring is read in a terminal, so its equation is plain text. Here stands the same
equation in TeX; tests/test_site_tool.py asks that each one is found in a docstring.
"""

FORMULAS = {
    "||x - x_hat||_2^2": r"\lVert x - \hat x \rVert_2^2",
    "-log p(x|z) = ||x - x_hat||^2 / (2 s2) + (d/2) log(2 pi s2)": (
        r"-\log p(x|z) = \frac{\lVert x - \hat x \rVert^2}{2 s^2}"
        r" + \frac d2 \log(2 \pi s^2)"
    ),
    "-log p(x|z) = -sum [x log p + (1 - x) log(1 - p)]": (
        r"-\log p(x|z) = -\sum \bigl[x \log p + (1 - x) \log(1 - p)\bigr]"
    ),
    "KL(N(mu_j, sigma_j^2) || N(0, 1)) ="
    " (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2) / 2": (
        r"\mathrm{KL}\bigl(\mathcal N(\mu_j, \sigma_j^2)"
        r" \,\Vert\, \mathcal N(0, 1)\bigr)"
        r" = \tfrac12 \bigl(\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2\bigr)"
    ),
    "KL(q(z|x) || N(0, I)) = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2)": (
        r"\mathrm{KL}\bigl(q(z|x) \,\Vert\, \mathcal N(0, I)\bigr) = \tfrac12 \sum_j"
        r" \bigl(\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2\bigr)"
    ),
    "ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)) = -nll - kl  <=  log p(x)": (
        r"\mathrm{ELBO} = \mathbb E_q[\log p(x|z)]"
        r" - \mathrm{KL}\bigl(q(z|x) \,\Vert\, p(z)\bigr)"
        r" = -\mathtt{nll} - \mathtt{kl} \le \log p(x)"
    ),
    "log N(z; mu, sigma^2 I) = -1/2 sum [log 2 pi + logvar + (z - mu)^2 / sigma^2]": (
        r"\log \mathcal N(z; \mu, \sigma^2 I) = -\tfrac12 \sum \Bigl[\log 2\pi"
        r" + \log \sigma^2 + \frac{(z - \mu)^2}{\sigma^2}\Bigr]"
    ),
    "L_K = log( (1/K) sum_k w_k ), with w_k = p(x|z_k) p(z_k) / q(z_k|x)": (
        r"L_K = \log \frac1K \sum_k w_k, \quad"
        r" w_k = \frac{p(x|z_k)\, p(z_k)}{q(z_k|x)}"
    ),
    "-log D(x) - log(1 - D(G(z)))": r"-\log D(x) - \log\bigl(1 - D(G(z))\bigr)",
    "(||grad f(x_mix)||_2 - 1)^2 at x_mix = alpha x + (1 - alpha) G(z)": (
        r"\bigl(\lVert \nabla f(x_{\text{mix}}) \rVert_2 - 1\bigr)^2 \text{ at }"
        r" x_{\text{mix}} = \alpha x + (1 - \alpha)\, G(z)"
    ),
    "||grad D(x)||_2^2": r"\lVert \nabla D(x) \rVert_2^2",
    "q(z|x) = N(mu(x), sigma(x)^2), p(x|z) = N(decode(z), s2 I), p(z) = N(0, I)": (
        r"q(z|x) = \mathcal N\bigl(\mu(x), \sigma(x)^2\bigr), \quad"
        r" p(x|z) = \mathcal N\bigl(\mathtt{decode}(z), s^2 I\bigr), \quad"
        r" p(z) = \mathcal N(0, I)"
    ),
    "knobs ~ Uniform([-1, 1]^8)": r"\mathtt{knobs} \sim \mathrm{Uniform}([-1, 1]^8)",
    "1 - prod_j (N - j) / (N + M - j), j = 1 to k": (
        r"1 - \prod_{j=1}^{k} \frac{N - j}{N + M - j}"
    ),
    "|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))": (
        r"\lVert m_1 - m_2 \rVert^2"
        r" + \mathrm{tr}\bigl(S_1 + S_2 - 2 (S_1 S_2)^{1/2}\bigr)"
    ),
    "min_n sqrt(mean (x - x_n)^2)": r"\min_n \sqrt{\operatorname{mean} (x - x_n)^2}",
    "d = N / sum_i log(r2_i / r1_i)": r"d = \frac{N}{\sum_i \log(r_{2,i} / r_{1,i})}",
    "R^2 = 1 - sum (knob - prediction)^2 / sum (knob - mean)^2": (
        r"R^2 = 1 - \frac{\sum (\text{knob} - \text{prediction})^2}"
        r"{\sum (\text{knob} - \text{mean})^2}"
    ),
}
