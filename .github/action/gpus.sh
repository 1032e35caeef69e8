# shellcheck shell=bash
# Which GPUs a run gets. Sourced by run.sh.

has_nvidia() { # whether this runner has an NVIDIA device
    [[ -e /dev/nvidiactl ]] || { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }
}

wished_gpus() { # sets gpus: auto, all, none, a count, or device=LIST
    local one='[A-Za-z0-9:/_-]+'
    gpus=${QUANT_VERIFY_GPUS:-auto}
    gpus=${gpus//[[:space:]]/}
    if [[ $gpus =~ ^$one(,$one)+$ || $gpus =~ ^(GPU|MIG)-$one$ ]]; then gpus=device=$gpus; fi
    [[ $gpus =~ ^(auto|all|none|[1-9][0-9]*|device=$one(,$one)*)$ ]] ||
        fail 2 "the input gpus is '$QUANT_VERIFY_GPUS', which is none of auto, all, none, a count such as 2, device numbers such as 0,1; write device=0 for the first GPU alone"
}

limit_gpus() { # without a container: by CUDA_VISIBLE_DEVICES, which may be limited already
    local seen=${CUDA_VISIBLE_DEVICES-} numbers
    wished_gpus
    case $gpus in
        auto) return ;;
        none)
            export CUDA_VISIBLE_DEVICES=
            return
            ;;
    esac
    has_nvidia || fail 3 "the input gpus is '$QUANT_VERIFY_GPUS', but this runner has no NVIDIA device; leave gpus out, or choose another runner"
    case $gpus in
        all) ;;
        device=*) export CUDA_VISIBLE_DEVICES=${gpus#device=} ;;
        *)
            numbers=$(seq -s, 0 $((gpus - 1)))
            [[ -z $seen ]] || numbers=$(printf '%s' "$seen" | cut -d, -f "1-$gpus")
            export CUDA_VISIBLE_DEVICES=$numbers
            ;;
    esac
}

of_this_runner() { # VARIABLE LIST [COUNT]: sets gpus to what this runner was given, or to the first so many of it
    local given
    [[ $2 != *[!A-Za-z0-9:/,_-]* ]] ||
        fail 2 "$1 of this runner is '$2', which docker cannot be told; name the devices in the input gpus"
    IFS=, read -r -a given <<<"$2"
    [[ -z ${3:-} || $3 -le ${#given[@]} ]] ||
        fail 3 "the input gpus is '$3', but $1 gives this runner ${#given[@]}: $2; ask for fewer, or choose another runner"
    gpus=device=$(
        IFS=,
        echo "${given[*]:0:${3:-${#given[@]}}}"
    )
}

docker_gpus() { # sets gpu_words, the options of docker run; none where the container gets no GPU
    local visible=${NVIDIA_VISIBLE_DEVICES:-}
    gpu_words=()
    wished_gpus
    case $gpus:$visible in
        auto:void | auto:none) gpus=none ;;
        auto:all) gpus=all ;;
        auto:) if has_nvidia; then gpus=all; else gpus=none; fi ;;
        none:* | device=* | all: | all:all | all:void | all:none) ;;
        auto:* | all:*) of_this_runner NVIDIA_VISIBLE_DEVICES "$visible" ;;
        *: | *:all | *:void | *:none) # docker counts from the first GPU of the machine
            [[ -z ${CUDA_VISIBLE_DEVICES:-} ]] || of_this_runner CUDA_VISIBLE_DEVICES "$CUDA_VISIBLE_DEVICES" "$gpus"
            ;;
        *) of_this_runner NVIDIA_VISIBLE_DEVICES "$visible" "$gpus" ;;
    esac
    case $gpus in
        none) ;;
        device=*) gpu_words=(--gpus "\"$gpus\"") ;; # the inner quotes are docker's: a list holds commas
        *) gpu_words=(--gpus "$gpus") ;;
    esac
}
