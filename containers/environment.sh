# shellcheck shell=sh
# %environment of both images. What is set here wins over the user's own variable of that name, so only what the image
# cannot do without is set outright.
export PATH="/opt/neobert/bin:$PATH"
# Packages in the user's home were built for another Python, and would go before the image's.
export PYTHONNOUSERSITE=1
# The host's locale may not exist in the image.
export LC_ALL=C.UTF-8
