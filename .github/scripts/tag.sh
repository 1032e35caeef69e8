#!/usr/bin/env bash
# Commit what a release pins, tag it, move the tag of its major version if no newer release has it, and push all of it
# or nothing.
#
#   tag.sh VERSION DIGEST REMOTE BRANCH
#
# Two commits, because a commit cannot hold its own name: the first writes the image's digest into action.yml, the
# second the name of the first into fan-out.yml. The tag is on the second.
set -euo pipefail

main() {
  local version=$1 digest=$2 remote=$3 branch=$4 pinned refs
  python3 .github/scripts/pin.py version "$version"
  python3 .github/scripts/pin.py image "$digest"
  commit "Pin the image of $version" action.yml
  pinned=$(git rev-parse HEAD)
  python3 .github/scripts/pin.py action "$pinned" "$version"
  commit "Release $version" .github/workflows/fan-out.yml
  git tag "v$version"
  refs=("HEAD:refs/heads/$branch" "refs/tags/v$version")
  if newest "$version"; then
    git tag --force "v${version%%.*}"
    refs+=("+refs/tags/v${version%%.*}")
  fi
  git push --atomic "$remote" "${refs[@]}"
  git rev-parse HEAD
}

newest() { # of its major version
  local found
  found=$(git for-each-ref --count=1 --sort=-version:refname --format='%(refname:short)' "refs/tags/v${1%%.*}.*")
  [[ "$found" == "v$1" ]]
}

commit() {
  local message=$1 file=$2
  git -c user.name="github-actions[bot]" -c user.email="41898282+github-actions[bot]@users.noreply.github.com" \
    commit --quiet --message "$message" -- "$file"
}

if (($# != 4)); then
  echo "usage: tag.sh VERSION DIGEST REMOTE BRANCH" >&2
  exit 2
fi
main "$@"
